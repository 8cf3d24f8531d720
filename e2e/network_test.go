package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A network is a few hosts with addresses of their own: network namespaces on one switch, which is a namespace too. Each
// host has a second line, to the root namespace, over which the test watches and writes while the first one is broken.
//
//	root ── ctl ── host 1 ── eth0 ── p1 ┐
//	root ── ctl ── host 2 ── eth0 ── p2 ├─ bridge, in the switch
//	root ── ctl ── host 3 ── eth0 ── p3 ┘
//
// What is left of a run that was killed is removed by the next one: the names tell the process that made them.
type network struct {
	t     *testing.T
	name  string // of the namespaces, in front of -sw and -h1, -h2, …
	hosts []*host
	rules bool // nft cannot be used here, so packets are dropped by routing rules
	v6    error
}

// A host is a namespace.
type host struct {
	net     *network
	name    string
	port    string // the switch's end of its line
	control string // the address at which the test reaches it
	ip, ip6 string // the addresses at which the other hosts reach it
	holes   int    // routing rules in force, of each family
}

const netPrefix = "understudy-"

// newNetwork makes a network, or skips the test and says what is missing. mechanism is "nft", "rules", or "" for the better one.
func newNetwork(t *testing.T, hosts int, mechanism string) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root: run the tests as root to see this one")
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed, it is in the package iproute2; .ci/run installs it where it may", tool)
		}
	}
	removeStaleNetworks()
	number := rand.IntN(1 << 13)
	n := &network{t: t, name: fmt.Sprint(netPrefix, os.Getpid(), "-", number)}
	t.Cleanup(n.remove)
	sw := n.name + "-sw"
	if out, err := tool("", "ip", "netns", "add", sw); err != nil {
		t.Skipf("network namespaces are not allowed here: %v: %s", err, out)
	}
	setup := "link set lo up\nlink add br0 type bridge\nlink set br0 up\n"
	for i := range hosts {
		h := &host{net: n, name: fmt.Sprint(n.name, "-h", i+1), port: fmt.Sprint("p", i+1)}
		h.ip, h.ip6 = fmt.Sprint("10.77.0.", i+1), fmt.Sprint("fd00::", i+1)
		here := 198<<24 | 18<<16 | number<<3 | 2*i // of 198.18.0.0/15, which is for tests of networks
		h.control = ipv4(here + 1)
		n.hosts = append(n.hosts, h)
		line := fmt.Sprintf("us%d-%d", number, i+1)
		n.ip("", "netns add "+h.name+
			"\nlink add "+line+" type veth peer name ctl netns "+h.name+
			"\naddr add "+ipv4(here)+" peer "+h.control+" dev "+line+
			"\nlink set "+line+" up")
		n.ip(h.name, "link set lo up\nlink set ctl up\naddr add "+h.control+" peer "+ipv4(here)+" dev ctl"+
			"\nlink add eth0 type veth peer name "+h.port+" netns "+sw+
			"\naddr add "+h.ip+"/24 dev eth0\nlink set eth0 up")
		setup += "link set " + h.port + " master br0\nlink set " + h.port + " up\n"
	}
	n.ip(sw, setup)
	for _, h := range n.hosts {
		if out, err := tool("", "ip", "-n", h.name, "addr", "add", h.ip6+"/64", "dev", "eth0", "nodad"); err != nil {
			n.v6 = fmt.Errorf("no IPv6 here: %w: %s", err, out)
		}
		n.prepareDrops(h, mechanism)
	}
	return n
}

// prepareDrops makes a host ready to drop packets of others: by a chain of nft, or by routing rules in front of the one that
// finds the host's own addresses.
func (n *network) prepareDrops(h *host, mechanism string) {
	n.t.Helper()
	if mechanism != "rules" && !n.rules {
		out, err := tool("add table inet faults\nadd chain inet faults in { type filter hook input priority 0; }\n", "ip", "netns", "exec", h.name, "nft", "-f", "-")
		if err == nil {
			return
		}
		if mechanism != "" {
			n.t.Skipf("nft cannot be used here: %v: %s", err, out)
		}
		n.t.Logf("nft cannot be used here, routing rules are: %v: %s", err, out)
	}
	n.rules = true
	for _, family := range []string{"-4", "-6"} {
		out, err := tool("rule add pref 100 lookup local\nrule del pref 0\n", "ip", family, "-n", h.name, "-batch", "-")
		if err != nil && (family == "-4" || n.v6 == nil) {
			n.t.Skipf("neither nft nor routing rules can be used here: %v: %s", err, out)
		}
	}
}

func ipv4(n int) string { return fmt.Sprintf("%d.%d.%d.%d", n>>24&255, n>>16&255, n>>8&255, n&255) }

// tool runs a tool and returns what it printed.
func tool(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(bytes.TrimSpace(out)), err
}

// ip runs a batch of commands of ip in a namespace, "" for the root's. One that begins with -6 is about that family.
func (n *network) ip(ns, batch string) {
	n.t.Helper()
	args := []string{"-batch", "-"}
	if ns != "" {
		args = append([]string{"-n", ns}, args...)
	}
	if rest, six := strings.CutPrefix(batch, "-6 "); six {
		batch, args = rest, append([]string{"-6"}, args...)
	}
	if out, err := tool(batch+"\n", "ip", args...); err != nil {
		n.t.Fatalf("ip in namespace %q: %v: %s\n%s", ns, err, out, batch)
	}
}

// remove ends the namespaces, and with them every line. The processes in them have ended before.
func (n *network) remove() {
	for _, name := range namespaces() {
		if strings.HasPrefix(name, n.name+"-") {
			if out, err := tool("", "ip", "netns", "del", name); err != nil {
				n.t.Errorf("namespace %s: %v: %s", name, err, out)
			}
		}
	}
}

func namespaces() (names []string) {
	entries, _ := os.ReadDir("/run/netns") // none, if nobody ever made one
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// removeStaleNetworks removes the namespaces of test runs that ended without doing so. Their processes ended with them.
var removeStaleNetworks = sync.OnceFunc(func() {
	for _, name := range namespaces() {
		rest, ours := strings.CutPrefix(name, netPrefix)
		pid, _, _ := strings.Cut(rest, "-")
		if _, err := strconv.Atoi(pid); !ours || err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join("/proc", pid)); errors.Is(err, os.ErrNotExist) {
			tool("", "ip", "netns", "del", name) //nolint:errcheck // another run may have been faster
		}
	}
})

// drop makes a host lose every packet that comes from another one. The way back stays good: a black hole in one direction.
func (h *host) drop(from *host) {
	h.net.t.Helper()
	if !h.net.rules {
		out, err := tool(fmt.Sprintf("add rule inet faults in ip saddr %s drop\nadd rule inet faults in ip6 saddr %s drop\n", from.ip, from.ip6),
			"ip", "netns", "exec", h.name, "nft", "-f", "-")
		if err != nil {
			h.net.t.Fatalf("nft: %v: %s", err, out)
		}
		return
	}
	h.net.ip(h.name, "rule add pref 50 from "+from.ip+" blackhole")
	if h.net.v6 == nil {
		h.net.ip(h.name, "-6 rule add pref 50 from "+from.ip6+" blackhole")
	}
	h.holes++
}

// unplug takes the host's cable out of the switch, or puts it in again.
func (h *host) unplug(out bool) {
	h.net.t.Helper()
	h.net.ip(h.net.name+"-sw", "link set "+h.port+map[bool]string{true: " down", false: " up"}[out])
}

// slow limits what the host sends to so many bits a second. 0 lifts the limit.
func (h *host) slow(bits int) {
	h.net.t.Helper()
	args := []string{"-n", h.name, "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", fmt.Sprint(bits, "bit"), "burst", "32kb", "latency", "300ms"}
	if bits == 0 {
		args = []string{"-n", h.name, "qdisc", "del", "dev", "eth0", "root"}
	}
	if out, err := tool("", "tc", args...); err != nil {
		h.net.t.Fatalf("tc %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// heal ends what drop and unplug did.
func (n *network) heal() {
	n.t.Helper()
	for _, h := range n.hosts {
		h.unplug(false)
		if !n.rules {
			if out, err := tool("", "ip", "netns", "exec", h.name, "nft", "flush", "chain", "inet", "faults", "in"); err != nil {
				n.t.Fatalf("nft: %v: %s", err, out)
			}
			continue
		}
		for ; h.holes > 0; h.holes-- {
			n.ip(h.name, "rule del pref 50")
			if n.v6 == nil {
				n.ip(h.name, "-6 rule del pref 50")
			}
		}
	}
}

// inside runs f on a thread in the host's namespace. Sockets that f opens stay there.
func (h *host) inside(f func() error) error {
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and nobody else gets it
		errs <- func() error {
			ns, err := os.Open(filepath.Join("/run/netns", h.name))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-errs
}

// node prepares a node that runs on the host, listens on every address of it and on the default ports, and tells others
// the host's address on the network. The test reaches it over the line that never breaks.
func (h *host) node(role, name, family string, args ...string) *node {
	h.net.t.Helper()
	n := newNode(h.net.t, role, name)
	any, port := "0.0.0.0", "6380"
	n.host = h.ip
	if family == "ip6" {
		any, n.host = "::", h.ip6
	}
	if role == "replica" {
		port = "7380"
	}
	n.listen, n.base = net.JoinHostPort(any, port), 10000
	base, _ := strconv.Atoi(port)
	n.base += base
	n.dial(net.JoinHostPort(h.control, port))
	n.wrap = []string{"ip", "netns", "exec", h.name}
	n.args = append([]string{"--announce-host", n.host}, args...)
	return n
}

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/status"
)

// family is the network's protocol: "ip4" or "ip6".
const (
	ip4 = "ip4"
	ip6 = "ip6"
)

// A line is three hosts with a node each: a primary, a replica of it, and a chained replica of that one.
type line struct {
	*network
	primary, replica, chained *node
	shards                    int
	fullSyncs                 map[*node]uint64 // at the beginning; the replica counts its own and those that it served
}

// newLine starts the three and waits until everything streams.
func newLine(t *testing.T, family string) *line {
	t.Helper()
	l := &line{network: newNetwork(t, 3, ""), shards: 2}
	if family == ip6 && l.v6 != nil {
		t.Skip(l.v6)
	}
	l.primary = l.hosts[0].node("primary", "primary", family, "--shards", fmt.Sprint(l.shards))
	l.replica = l.hosts[1].node("replica", "replica", family, "--primary", l.primary.replication())
	l.chained = l.hosts[2].node("replica", "chained", family, "--primary", l.replica.replication())
	for _, n := range []*node{l.primary, l.replica, l.chained} {
		n.start()
	}
	l.waitStreaming(20 * time.Second)
	l.fullSyncs = map[*node]uint64{}
	for _, n := range []*node{l.primary, l.replica, l.chained} {
		l.fullSyncs[n] = n.counters().allFullSyncs()
	}
	return l
}

func (l *line) waitStreaming(within time.Duration) {
	l.t.Helper()
	for _, n := range []*node{l.replica, l.chained} {
		eventually(l.t, within, n.name+" streams every shard", func() error { return streaming(n, l.shards) })
	}
}

// A link is a parent and who follows it.
type link struct{ parent, child *node }

func (l *line) upper() link { return link{l.primary, l.replica} }
func (l *line) lower() link { return link{l.replica, l.chained} }

// down says whether both sides know that the link is down, as their status and INFO tell.
func (k link) down(shards int) error {
	if n := k.parent.slots()["detached"]; n != shards {
		return fmt.Errorf("%s has %v slots, want %d detached", k.parent.name, k.parent.slots(), shards)
	}
	s, err := k.child.status()
	if err != nil {
		return err
	}
	for _, sh := range s.Shards {
		if sh.Link == nil || sh.Link.State == "streaming" {
			return fmt.Errorf("%s, shard %d: %s", k.child.name, sh.Shard, linkText(sh.Link))
		}
	}
	info := k.child.info("replication")
	return errorf(info["master_link_status"] == "down", "%s: master_link_status is %q", k.child.name, info["master_link_status"])
}

// TestNetworkFaultsByRole: three hosts with addresses of their own, a primary, a replica and a chained replica on them. The host of each
// role is cut off, or heard by nobody, or deaf. Both sides of every broken link tell so within 10 s, the other link goes on, and when the network is whole again everybody resumes by himself.
func TestNetworkFaultsByRole(t *testing.T) {
	all := func(l *line) []link { return []link{l.upper(), l.lower()} }
	upper := func(l *line) []link { return []link{l.upper()} }
	lower := func(l *line) []link { return []link{l.lower()} }
	unplug := func(i int) func(*line) { return func(l *line) { l.hosts[i].unplug(true) } }
	hole := func(from, to int) func(*line) { return func(l *line) { l.hosts[to].drop(l.hosts[from]) } }
	for _, test := range []struct {
		name, family string
		fault        func(*line)
		broken       func(*line) []link
	}{
		{"primary cut off", ip4, unplug(0), upper},
		{"replica cut off", ip4, unplug(1), all},
		{"chained replica cut off", ip4, unplug(2), lower},
		{"primary is not heard", ip4, hole(0, 1), upper},
		{"primary is deaf", ip4, hole(1, 0), upper},
		{"replica is not heard", ip4, func(l *line) { hole(1, 0)(l); hole(1, 2)(l) }, all},
		{"replica is deaf", ip4, func(l *line) { hole(0, 1)(l); hole(2, 1)(l) }, all},
		{"chained replica is not heard", ip4, hole(2, 1), lower},
		{"chained replica is deaf", ip4, hole(1, 2), lower},
		{"replica cut off over IPv6", ip6, func(l *line) { hole(1, 0)(l); hole(0, 1)(l); hole(1, 2)(l); hole(2, 1)(l) }, all},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, test.family)
			l.expectAnnounced()
			load := l.primary.startLoad(loadOptions{clients: 1, pause: 5 * time.Millisecond})
			load.waitAcked(100, 10*time.Second)
			test.fault(l)
			began := time.Now()
			broken := test.broken(l)
			eventually(t, 10*time.Second, "both sides of every broken link notice", func() error {
				for _, k := range broken {
					if err := k.down(l.shards); err != nil {
						return err
					}
				}
				return nil
			})
			t.Logf("noticed after %s", time.Since(began).Round(100*time.Millisecond))
			if len(broken) == 1 {
				whole := l.lower()
				if broken[0] == whole {
					whole = l.upper()
				}
				if err := streaming(whole.child, l.shards); err != nil {
					t.Errorf("the link that is not broken: %v", err)
				}
			}
			load.waitAcked(100, 10*time.Second) // The primary goes on.
			l.heal()
			l.waitStreaming(15 * time.Second)
			l.expectWhole(load)
			for _, k := range broken {
				if c := k.child.counters(); c.resumes < uint64(l.shards) {
					t.Errorf("%s: %s, want a resume of each shard", k.child.name, c)
				}
			}
		})
	}
}

// expectWhole ends the load and asserts that all three nodes have what was written, without a second full sync.
func (l *line) expectWhole(load *load) {
	l.t.Helper()
	load.stop()
	if n := load.errors.Load(); n > 0 {
		l.t.Errorf("%d writes failed", n)
	}
	mirrors(l.t, l.primary, l.replica, l.chained)
	for _, n := range []*node{l.primary, l.replica, l.chained} {
		load.check(n)
		wantEqual(l.t, "full syncs of "+n.name, n.counters().allFullSyncs(), l.fullSyncs[n])
	}
}

// expectAnnounced asserts that each node tells the others its address on the network, and not the one it listens on.
func (l *line) expectAnnounced() {
	l.t.Helper()
	for _, k := range []link{l.upper(), l.lower()} {
		port := k.child.addr[strings.LastIndexByte(k.child.addr, ':')+1:]
		eventually(l.t, 5*time.Second, k.parent.name+" knows where "+k.child.name+" is", func() error {
			slots := slotsOf(k.parent.mustStatus())
			for _, s := range slots {
				if s.Address != net.JoinHostPort(k.child.host, port) || s.AnnounceBase != k.child.replication() {
					return fmt.Errorf("it believes at %s, replication at %s", s.Address, s.AnnounceBase)
				}
			}
			return errorf(len(slots) == l.shards, "%d slots", len(slots))
		})
		slave := k.parent.info("replication")["slave0"]
		if !strings.HasPrefix(slave, "ip="+k.child.host+",port="+port+",") {
			l.t.Errorf("INFO of %s: slave0:%s, want %s and port %s", k.parent.name, slave, k.child.host, port)
		}
	}
}

func slotsOf(n status.Node) (all []status.Slot) {
	for _, s := range n.Shards {
		all = append(all, s.Slots...)
	}
	return all
}

// TestNetworkSlowLinks: what a host of each role sends passes at a megabit a second, with far more written than that. Nothing is
// taken for dead, writers are not slowed down, what is behind is told as lag, and is made up for afterwards.
func TestNetworkSlowLinks(t *testing.T) {
	t.Parallel()
	for i, role := range []string{"primary", "replica", "chained replica"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, ip4)
			before := []counters{l.replica.counters(), l.chained.counters()}
			l.hosts[i].slow(1_000_000)
			load := l.primary.startLoad(loadOptions{clients: 1, pipeline: 16, value: 1000, pause: 10 * time.Millisecond})
			load.waitAcked(1000, 20*time.Second)
			var lag uint64
			throughout(t, 13*time.Second, "every link stays up", func() error {
				for _, k := range []link{l.upper(), l.lower()} {
					if n := k.parent.slots()["online"]; n != l.shards {
						return fmt.Errorf("%s has the slots %v", k.parent.name, k.parent.slots())
					}
					if err := streaming(k.child, l.shards); err != nil {
						return fmt.Errorf("%s: %w", k.child.name, err)
					}
				}
				if i < 2 {
					for _, s := range slotsOf([]*node{l.primary, l.replica}[i].mustStatus()) {
						lag = max(lag, s.LagMutations)
					}
				}
				return nil
			})
			if i < 2 && lag < 500 {
				t.Errorf("the lag was %d mutations at most; the link was not slow", lag)
			}
			acked := load.acked.Load()
			if acked < 5000 {
				t.Errorf("%d writes were acknowledged in 13 s", acked)
			}
			l.hosts[i].slow(0)
			l.expectWhole(load)
			for j, n := range []*node{l.replica, l.chained} {
				wantEqual(t, "resumes of "+n.name, n.counters().resumes, before[j].resumes)
			}
			t.Logf("%d writes, at most %d mutations behind", acked, lag)
		})
	}
}

// TestNetworkFaults: each way to drop packets drops those of one direction, until it is healed.
func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"nft", "rules"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, 2, mechanism)
			a, b := newPost(t, n.hosts[0]), newPost(t, n.hosts[1])
			b.expect(a, "good", "")
			b.host.drop(a.host)
			a.send(b, "lost")
			a.expect(b, "back", "")
			n.heal()
			b.expect(a, "again", "lost")
			a.host.unplug(true)
			a.send(b, "late")
			must(t, b.conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
			if got, err := b.conn.Read(make([]byte, 100)); err == nil {
				t.Errorf("%d bytes arrive without a cable", got)
			}
			n.heal()
			b.expect(a, "at last", "")
		})
	}
}

// A post is a socket on a host that takes datagrams.
type post struct {
	t    *testing.T
	host *host
	conn *net.UDPConn
}

func newPost(t *testing.T, h *host) *post {
	t.Helper()
	p := &post{t: t, host: h}
	must(t, h.inside(func() (err error) {
		p.conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(h.ip), Port: 1})
		return err
	}))
	t.Cleanup(func() { p.conn.Close() })
	return p
}

func (p *post) send(to *post, text string) {
	p.t.Helper()
	// While the cable is out there may be no route, which is as good as lost.
	p.conn.WriteToUDP([]byte(text), to.conn.LocalAddr().(*net.UDPAddr)) //nolint:errcheck // see above
}

// expect has the other one send a text until it arrives, as datagrams may be lost, and asserts that one text never does.
func (p *post) expect(from *post, text, never string) {
	p.t.Helper()
	buf := make([]byte, 100)
	eventually(p.t, 5*time.Second, text+" arrives", func() error {
		from.send(p, text)
		must(p.t, p.conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		for {
			n, err := p.conn.Read(buf)
			if err != nil {
				return err
			}
			if got := string(buf[:n]); got == text {
				return nil
			} else if got == never {
				p.t.Fatalf("%q arrived", got)
			}
		}
	})
}

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/understudy-kv/understudy/internal/ports"
	"github.com/understudy-kv/understudy/internal/status"
)

// A node is a data directory and addresses, and the process that runs on them, if any.
type node struct {
	t    *testing.T
	name string // also the command's: "primary" or "replica", perhaps with a number behind it
	role string
	dir  string
	logs string
	addr string // RESP, as the test reaches it
	host string // at which other nodes reach it
	base int    // replication port of shard 0
	// listen is the address to listen on, if it is not addr.
	listen string
	args   []string
	wrap   []string // a command that runs the node's, if any
	proc   *process
	rdb    *redis.Client
}

var nodes sync.Map // *testing.T of each test that has a node -> its log folder

// newNode prepares a node without starting it. Its directory and its logs end with the test.
func newNode(t *testing.T, role, name string, args ...string) *node {
	t.Helper()
	root, loaded := nodes.Load(t)
	if !loaded {
		root = t.TempDir()
		nodes.Store(t, root)
		t.Cleanup(func() { nodes.Delete(t) })
	}
	logs := root.(string)
	n := &node{t: t, name: name, role: role, dir: filepath.Join(logs, name), logs: logs, args: args, host: "127.0.0.1"}
	n.dial(net.JoinHostPort(n.host, strconv.Itoa(freePorts(t, 1))))
	t.Cleanup(func() {
		n.rdb.Close()
		if n.proc == nil {
			return
		}
		if t.Failed() {
			t.Log(n.proc.tail(80))
		}
		n.proc.signal(syscall.SIGCONT)
		n.proc.kill()
	})
	return n
}

// dial makes the node's client, of the address at which the test reaches it.
func (n *node) dial(addr string) {
	if n.rdb != nil {
		n.rdb.Close()
	}
	n.addr = addr
	// MaxRetries -1: what a client was told must be what happened, so nothing is sent twice behind the test's back.
	n.rdb = redis.NewClient(&redis.Options{Addr: n.addr, MaxRetries: -1, ReadTimeout: 20 * time.Second, DialTimeout: 2 * time.Second, PoolSize: 64})
}

// freePorts finds a row of free ports that nobody else is given while the test runs.
func freePorts(t testing.TB, n int) int {
	t.Helper()
	// While a process is being forked, its copy of a socket that was closed here keeps the port for an instant.
	syscall.ForkLock.RLock()
	base, release, err := ports.Reserve("127.0.0.1", n)
	syscall.ForkLock.RUnlock()
	must(t, err)
	t.Cleanup(func() { must(t, release()) })
	return base
}

// newPrimary prepares a primary with so many shards.
func newPrimary(t *testing.T, shards int, args ...string) *node {
	t.Helper()
	return newPrimaryNamed(t, "primary", shards, args...)
}

// newPrimaryNamed is for tests with several.
func newPrimaryNamed(t *testing.T, name string, shards int, args ...string) *node {
	t.Helper()
	n := newNode(t, "primary", name)
	n.base = freePorts(t, shards)
	n.args = append([]string{"--shards", strconv.Itoa(shards), "--replication-port-base", strconv.Itoa(n.base)}, args...)
	return n
}

// newReplica prepares a replica that follows the replication address "host:base".
func newReplica(t *testing.T, name, primary string, args ...string) *node {
	t.Helper()
	n := newNode(t, "replica", name)
	n.base = freePorts(t, 8) // as many as a primary of these tests has shards
	n.args = append([]string{"--primary", primary, "--replication-port-base", strconv.Itoa(n.base)}, args...)
	return n
}

// replication is where replicas find this node.
func (n *node) replication() string { return net.JoinHostPort(n.host, strconv.Itoa(n.base)) }

// start runs the node's process and waits until it is ready.
func (n *node) start() *node {
	n.t.Helper()
	n.launch()
	n.proc.waitReady(30 * time.Second)
	return n
}

func (n *node) launch() {
	n.t.Helper()
	if n.proc != nil && n.proc.running() {
		n.t.Fatalf("%s runs already", n.name)
	}
	listen := n.listen
	if listen == "" {
		listen = n.addr
	}
	args := append([]string{"--data-dir", n.dir, "--listen", listen}, n.args...)
	n.proc = start(n.t, n.name, n.logs, n.wrap, n.role, args...)
}

func (n *node) stop()  { n.t.Helper(); n.proc.stop() }
func (n *node) kill()  { n.t.Helper(); n.proc.kill() }
func (n *node) pause() { n.t.Helper(); n.proc.signal(syscall.SIGSTOP) }
func (n *node) cont()  { n.t.Helper(); n.proc.signal(syscall.SIGCONT) }

// status asks for REPL.STATUS.
func (n *node) status() (status.Node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var s status.Node
	text, err := n.rdb.Do(ctx, "REPL.STATUS").Text()
	if err != nil {
		return s, fmt.Errorf("%s: REPL.STATUS: %w", n.name, err)
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("%s: REPL.STATUS: %w in %s", n.name, err, text)
	}
	if len(s.Shards) == 0 && n.role == "primary" {
		return s, fmt.Errorf("%s: REPL.STATUS names no shard", n.name)
	}
	return s, nil
}

func (n *node) mustStatus() status.Node {
	n.t.Helper()
	s, err := n.status()
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() && n.proc != nil && n.proc.running() {
		// It lives, and does not answer: its goroutines tell where it hangs.
		n.proc.signal(syscall.SIGQUIT)
		n.proc.wait(10 * time.Second)
		n.t.Log(n.proc.tail(3000))
	}
	must(n.t, err)
	return s
}

// counters are what a node has counted since its process started, over all shards.
type counters struct {
	fullSyncs map[string]uint64
	resumes   uint64
	refusals  map[string]uint64
}

func (n *node) counters() counters {
	n.t.Helper()
	c := counters{fullSyncs: map[string]uint64{}, refusals: map[string]uint64{}}
	for _, s := range n.mustStatus().Shards {
		c.resumes += s.Resumes
		for reason, k := range s.FullSyncs {
			c.fullSyncs[reason] += k
		}
		for code, k := range s.Refusals {
			c.refusals[code] += k
		}
	}
	return c
}

func (c counters) allFullSyncs() (n uint64) {
	for _, k := range c.fullSyncs {
		n += k
	}
	return n
}

func (c counters) String() string {
	return fmt.Sprintf("full syncs %v, resumes %d, refusals %v", c.fullSyncs, c.resumes, c.refusals)
}

// du is how many bytes the files below a folder of the node take.
func (n *node) du(pattern string) (total int64) {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.dir, pattern))
	must(n.t, err)
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			total += info.Size()
		}
	}
	return total
}

// files gives the files of the node that match a pattern, relative to its directory.
func (n *node) files(pattern string) []string {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.dir, pattern))
	must(n.t, err)
	return files
}

// info gives the fields of a section of INFO.
func (n *node) info(section string) map[string]string {
	n.t.Helper()
	text, err := n.rdb.Info(context.Background(), section).Result()
	must(n.t, err)
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[k] = v
		}
	}
	return fields
}

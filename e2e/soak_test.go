package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/faultproxy"
	"github.com/understudy-kv/understudy/internal/status"
)

// TestSoak breaks three nodes at random under mixed load, for as long as -soak says: kills, pauses, cuts, restarts,
// retargets, handovers, and promotions beside a primary that is dead, paused, or cut off and still written to. In between
// everything must come to rest: no acknowledged write lost that was promised, no full sync that nothing calls for, three
// identical keyspaces. Memory, goroutines, open files and disk must stay within
// what the options add up to; one node's process lives through the run, and in a long one nothing of it may grow.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("-soak 0 leaves it out")
	}
	t.Parallel()
	s := newSoak(t, rng(t))
	began := time.Now()
	for time.Since(began) < *soak {
		s.round()
	}
	s.rest()
	if runs := s.veteran.proc.runs(t); runs != 1 {
		t.Errorf("%s was started %d times; its process was to live through the run", s.veteran.name, runs)
	}
	for name, n := range s.did {
		t.Logf("%4d times: %s", n, name)
	}
	s.usage.judge(t, *soak)
}

// A soaked is three nodes, any of which may be the primary, each with a proxy in front of its replication ports.
type soaked struct {
	t       *testing.T
	r       *rand.Rand
	shards  int
	nodes   []*node
	proxies map[*node]*faultproxy.Proxy
	parent  map[*node]*node // whom each node was told to follow; nil for the primary
	load    *load
	loads   []*load // all that ended
	rounds  int
	did     map[string]int
	mixed   context.CancelFunc
	usage   *usage
	veteran *node // its process lives from the beginning to the end
}

func newSoak(t *testing.T, r *rand.Rand) *soaked {
	t.Helper()
	s := &soaked{t: t, r: r, shards: 2, proxies: map[*node]*faultproxy.Proxy{}, parent: map[*node]*node{}, did: map[string]int{}}
	s.usage = newUsage(nodeLimits{shards: int64(s.shards), memory: 32 * mib, backlog: mib, inbox: 8 * mib, keep: 8 * mib, disk: 32 * mib})
	bounds := []string{"--backlog-memory", "1MiB", "--backlog-keep", "8MiB", "--backlog-disk", "32MiB", "--memory", "32MiB", "--inbox-bytes", "8MiB", "--reconnect-window", "120s"}
	for i := range 3 {
		var n *node
		if i == 0 {
			n = newPrimary(t, s.shards, bounds...)
		} else {
			n = newReplica(t, fmt.Sprint("replica", i), s.nodes[0].replication(), bounds...)
		}
		// Others reach the node through its proxy, which is what it announces.
		at := freePorts(t, s.shards)
		proxy, err := faultproxy.Start(faultproxy.Options{Port: at, Target: n.replication(), Ports: s.shards})
		must(t, err)
		t.Cleanup(func() { proxy.Close() })
		n.args = append(n.args, "--announce-port-base", fmt.Sprint(at))
		n.base, s.proxies[n] = at, proxy
		s.nodes = append(s.nodes, n)
	}
	for i, n := range s.nodes {
		n.start()
		if i > 0 {
			s.parent[n] = s.nodes[0]
		}
	}
	s.waitStreaming()
	s.veteran = s.nodes[s.r.IntN(len(s.nodes))]
	s.usage.flat = s.veteran
	s.t.Logf("%s is neither killed nor restarted", s.veteran.name)
	s.begin()
	return s
}

// primary is the node that follows nobody.
func (s *soaked) primary() *node {
	for _, n := range s.nodes {
		if s.parent[n] == nil {
			return n
		}
	}
	panic("nobody is the primary")
}

// others are the nodes but one, in random order.
func (s *soaked) others(but *node) (out []*node) {
	for _, i := range s.r.Perm(len(s.nodes)) {
		if s.nodes[i] != but {
			out = append(out, s.nodes[i])
		}
	}
	return out
}

// begin starts to write: a load that can be judged, and commands of every kind beside it.
func (s *soaked) begin() {
	p := s.primary()
	s.load = p.startLoad(loadOptions{clients: 3, keys: 32, value: 300, pause: 2 * time.Millisecond, others: s.nodes, replicas: 2})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	gen := commandtest.NewGenerator(s.r.Uint64())
	for i := 0; i < len(gen.Kinds); i++ {
		if strings.HasPrefix(gen.Kinds[i], "flush") { // It would take the keys that are judged.
			gen.Kinds = append(gen.Kinds[:i], gen.Kinds[i+1:]...)
			i--
		}
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			pipe := p.rdb.Pipeline()
			for range 8 {
				var args []any
				for _, a := range gen.Next() {
					args = append(args, a)
				}
				pipe.Do(ctx, args...)
			}
			pipe.Exec(ctx) //nolint:errcheck // most are wrong in some way, on purpose
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	s.mixed = func() { cancel(); <-done }
	s.t.Cleanup(s.mixed)
}

// end ends the writing. What was acknowledged is judged later.
func (s *soaked) end() {
	s.mixed()
	s.load.stop()
	s.loads = append(s.loads, s.load)
}

// round is one fault and what follows. Every third one, everything comes to rest.
func (s *soaked) round() {
	faults := []struct {
		name string
		do   func()
	}{
		{"a replica is killed", func() { s.restart(s.others(s.primary())[0], true) }},
		{"the primary is killed", func() { s.restart(s.primary(), true) }},
		{"a node is restarted", func() { s.restart(s.nodes[s.r.IntN(3)], false) }},
		{"a node is paused", s.pause},
		{"a node's links are cut", s.cut},
		{"a replica follows another node", s.retarget},
		{"a handover", s.handOver},
		{"a promotion beside a dead primary", func() { s.promote("dead") }},
		{"a promotion beside a paused primary", func() { s.promote("paused") }},
		{"a promotion beside a primary that is cut off", func() { s.promote("cut off") }},
	}
	f := faults[s.r.IntN(len(faults))]
	s.t.Logf("round %d: %s; the primary is %s", s.rounds, f.name, s.primary().name)
	s.did[f.name]++
	s.load.waitAcked(int64(1+s.r.IntN(300)), 30*time.Second)
	f.do()
	s.load.waitAcked(50, 30*time.Second)
	s.waitStreaming()
	if s.rounds++; s.rounds%3 == 0 {
		s.rest()
		s.begin()
	}
}

func (s *soaked) waitStreaming() {
	s.t.Helper()
	for _, n := range s.nodes {
		if s.parent[n] != nil {
			eventually(s.t, 40*time.Second, n.name+" streams every shard", func() error { return streaming(n, s.shards) })
		}
	}
	s.noFullSyncs()
}

func (s *soaked) noFullSyncs() {
	s.t.Helper()
	for _, n := range s.nodes {
		if c := n.counters(); c.allFullSyncs() != c.fullSyncs["empty"]+c.fullSyncs["diverged"] {
			s.t.Fatalf("%s: full syncs that nothing called for: %v", n.name, c)
		}
	}
}

// rest waits until nobody writes and everybody has everything, and looks at it.
func (s *soaked) rest() {
	s.t.Helper()
	s.end()
	p := s.primary()
	s.waitStreaming()
	mirrors(s.t, p, s.others(p)...)
	for _, l := range s.loads {
		l.check(p)
		l.settle()
	}
	for _, n := range s.nodes {
		s.usage.measure(s.t, n)
	}
	if len(s.loads) > 6 { // What is judged for ever would grow for ever.
		s.loads[0].forget(p)
		s.loads = s.loads[1:]
	}
}

func (s *soaked) restart(n *node, kill bool) {
	s.noFullSyncs()
	if n == s.veteran {
		n = s.others(n)[0]
	}
	if kill {
		n.kill()
	} else {
		n.stop()
	}
	hold(time.Duration(s.r.IntN(500)) * time.Millisecond)
	n.start()
}

func (s *soaked) pause() {
	n := s.nodes[s.r.IntN(3)]
	n.pause()
	hold(time.Duration(100+s.r.IntN(3000)) * time.Millisecond)
	n.cont()
}

func (s *soaked) cut() {
	p := s.proxies[s.nodes[s.r.IntN(3)]]
	if s.r.IntN(2) == 0 {
		p.CutAfter(faultproxy.ToClient, uint64(s.r.IntN(100_000)))
		return
	}
	must(s.t, p.Down())
	hold(time.Duration(s.r.IntN(3000)) * time.Millisecond)
	must(s.t, p.Up())
}

func (s *soaked) retarget() {
	for _, n := range s.others(s.primary()) {
		for _, to := range s.others(n) {
			if s.parent[n] != to && s.parent[to] != n {
				n.follow(to)
				s.parent[n] = to
				return
			}
		}
	}
}

// handOver has the primary hand its role to a replica of its own, under load, and nothing may be lost.
func (s *soaked) handOver() {
	p := s.primary()
	for _, n := range s.others(p) {
		if s.parent[n] != p {
			continue
		}
		host, port, _ := net.SplitHostPort(n.addr)
		// The cut of an earlier round may come only now; while the target dials anew the request is refused, and nothing has happened.
		eventually(s.t, 20*time.Second, "the handover begins", func() error {
			ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
			defer cancel()
			err := p.rdb.Do(ctx, "FAILOVER", "TO", host, port, "TIMEOUT", "10000").Err()
			if err != nil && !strings.Contains(err.Error(), "target replica is not online") {
				s.t.Fatalf("%s: FAILOVER TO %s: %v", p.name, n.name, err)
			}
			return err
		})
		var f *status.Failover
		eventually(s.t, 20*time.Second, "the handover is over", func() error {
			f = p.mustStatus().Failover
			return errorf(f != nil && f.State == status.FailoverNone, "%+v", f)
		})
		if f.Result != "done" {
			s.t.Fatalf("the handover from %s to %s: %+v", p.name, n.name, f)
		}
		s.parent[p], s.parent[n] = n, nil
		return
	}
}

// promote makes a replica the primary beside one that cannot be asked. What only the old one had is lost to clients, and
// becomes its surplus.
func (s *soaked) promote(how string) {
	s.noFullSyncs()
	old := s.primary()
	next := s.others(old)[0]
	if old == s.veteran && how == "dead" {
		how = "paused"
	}
	switch how {
	case "dead":
		old.kill()
		s.end()
	case "paused":
		s.end()
		old.pause()
	case "cut off":
		must(s.t, s.proxies[old].Down())
		s.load.waitAcked(int64(s.r.IntN(500)), 30*time.Second) // for nobody but the old primary
		s.end()
	}
	for _, l := range s.loads {
		l.unsettle()
	}
	began := time.Now()
	next.command("REPLICAOF", "NO", "ONE")
	if took := time.Since(began); took > 5*time.Second {
		s.t.Errorf("a promotion took %s", took)
	}
	s.parent[next] = nil
	for _, n := range s.others(next) {
		if n != old {
			n.follow(next)
			s.parent[n] = next
		}
	}
	s.parent[old] = next
	s.begin()
	s.load.waitAcked(int64(s.r.IntN(200)), 30*time.Second)
	switch how {
	case "dead":
		old.start()
	case "paused":
		old.cont()
	case "cut off":
		must(s.t, s.proxies[old].Up())
	}
	old.follow(next)
}

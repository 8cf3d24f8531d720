package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/faultproxy"
)

// A setup says what pair to start.
type setup struct {
	shards  int
	primary []string // further flags
	replica []string
}

// A pair is a primary and a replica with a proxy between them.
type pair struct {
	t       *testing.T
	shards  int
	primary *node
	proxy   *faultproxy.Proxy
	replica *node
}

// newPair starts both and waits until the replica streams every shard.
func newPair(t *testing.T, s setup) *pair {
	t.Helper()
	p := prepare(t, s)
	p.primary.start()
	p.replica.start()
	p.waitStreaming(20 * time.Second)
	return p
}

// prepare makes a pair of which only the proxy runs.
func prepare(t *testing.T, s setup) *pair {
	t.Helper()
	if s.shards == 0 {
		s.shards = 2
	}
	p := &pair{t: t, shards: s.shards}
	p.primary = newPrimary(t, s.shards, s.primary...)
	var err error
	p.proxy, err = faultproxy.Start(faultproxy.Options{Port: freePorts(t, s.shards), Target: p.primary.replication(), Ports: s.shards})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.proxy)
		}
		p.proxy.Close()
	})
	p.replica = newReplica(t, "replica", p.proxy.Addr(), s.replica...)
	return p
}

// waitStreaming waits until the replica has every shard's stream.
func (p *pair) waitStreaming(within time.Duration) {
	p.t.Helper()
	eventually(p.t, within, "the replica streams every shard", func() error { return streaming(p.replica, p.shards) })
}

func streaming(n *node, shards int) error {
	s, err := n.status()
	if err != nil {
		return err
	}
	if len(s.Shards) != shards {
		return fmt.Errorf("the replica knows %d shards of %d", len(s.Shards), shards)
	}
	for _, sh := range s.Shards {
		if sh.Link == nil || sh.Link.State != "streaming" {
			return fmt.Errorf("shard %d: %s", sh.Shard, linkText(sh.Link))
		}
	}
	return nil
}

// waitCaughtUp waits until the replica stands where the primary stands. Nobody may be writing.
func (p *pair) waitCaughtUp(within time.Duration) {
	p.t.Helper()
	eventually(p.t, within, "the replica catches up", func() error { return caughtUp(p.primary, p.replica) })
}

func caughtUp(primary, replica *node) error {
	ps, err := primary.status()
	if err != nil {
		return err
	}
	rs, err := replica.status()
	if err != nil {
		return err
	}
	if len(ps.Shards) != len(rs.Shards) {
		return fmt.Errorf("the primary has %d shards, the replica %d", len(ps.Shards), len(rs.Shards))
	}
	for i := range ps.Shards {
		if a, b := ps.Shards[i], rs.Shards[i]; a.Position != b.Position {
			return fmt.Errorf("shard %d: primary at %s, replica at %s, %s", a.Shard, a.Position, b.Position, linkText(b.Link))
		}
	}
	return nil
}

// waitIdentical waits until the replica has caught up, and compares the keyspaces in both ways that there are.
func (p *pair) waitIdentical(within time.Duration) {
	p.t.Helper()
	p.waitCaughtUp(within)
	identical(p.t, p.primary, p.replica)
}

// marks is what a scenario compares before and after.
type marks struct {
	primary, replica counters
	generations      []string
	offsets          uint64 // sum over the replica's shards
	received         uint64 // mutations that the replica's links received
}

func (p *pair) marks() marks {
	p.t.Helper()
	m := marks{primary: p.primary.counters(), replica: p.replica.counters()}
	for _, s := range p.primary.mustStatus().Shards {
		m.generations = append(m.generations, s.Lineage...)
	}
	for _, s := range p.replica.mustStatus().Shards {
		// Both are of one moment, also under load; what is applied may lag behind.
		m.offsets += s.Link.Received
		m.received += s.Link.Mutations
	}
	return m
}

// set writes one key and fails the test if that fails.
func (n *node) set(key, value string) {
	n.t.Helper()
	must(n.t, n.rdb.Set(context.Background(), key, value, 0).Err())
}

// mirror writes a key that the primary then has and waits until the replica has it: the least proof of life.
func (p *pair) mirror(within time.Duration) {
	p.t.Helper()
	value := fmt.Sprint(time.Now().UnixNano())
	for i := range 8 * p.shards { // With so many keys no shard is likely to be left out.
		p.primary.set(fmt.Sprint("alive:", i), value)
	}
	eventually(p.t, within, "a write reaches the replica", func() error {
		for i := range 8 * p.shards {
			got, err := p.replica.rdb.Get(context.Background(), fmt.Sprint("alive:", i)).Result()
			if err != nil || got != value {
				return fmt.Errorf("key %d: %q, %v", i, got, err)
			}
		}
		return nil
	})
}

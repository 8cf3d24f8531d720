package node_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/primary"
	"github.com/understudy-kv/understudy/replica"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// member is a node of a test, which can be stopped and opened again.
type member struct {
	*node.Node
	t    *testing.T
	opts node.Options
}

// openNode opens a node in a directory of its own, as a primary if it follows nobody.
func openNode(t *testing.T, name, follows string) *member {
	t.Helper()
	m := &member{t: t, opts: node.Options{
		Dir: filepath.Join(t.TempDir(), name), Role: store.Primary, Shards: 2, Memory: 32 << 20, BacklogMemory: 1 << 20, Primary: follows,
		Serve:  primary.Serve(primary.ServerOptions{}),
		Follow: replica.Follow(replica.FollowerOptions{Backoff: replica.Backoff{Min: 10 * time.Millisecond, Patient: 20 * time.Millisecond}}),
	}}
	if follows != "" {
		m.opts.Role, m.opts.Shards = store.Replica, 0
	}
	m.open()
	t.Cleanup(m.close)
	return m
}

func (m *member) open() {
	m.t.Helper()
	n, err := node.Open(m.opts)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Node = n
	if _, base, err := node.SplitAddress(n.ReplicationAddr()); err == nil {
		m.opts.ReplicationPortBase = base // the same at the next start
	}
}

func (m *member) close() {
	m.t.Helper()
	if err := m.Close(); err != nil {
		m.t.Error(err)
	}
}

func (m *member) do(args ...any) any {
	m.t.Helper()
	v, err := m.Do(m.t.Context(), args...)
	if err != nil {
		m.t.Fatalf("%v: %v", args, err)
	}
	return v
}

// fill writes n keys.
func (m *member) fill(prefix string, n int) {
	m.t.Helper()
	for i := range n {
		m.do("SET", fmt.Sprint(prefix, i), prefix)
	}
}

// ready waits until a replica serves its data to replicas of its own, and returns where.
func (m *member) ready() string {
	m.t.Helper()
	eventually.True(m.t, patience, "the node streams and serves", func() bool {
		f := m.Follower()
		return m.Server() != nil && (f == nil || f.Streaming()) && m.Status().Ready
	})
	return m.ReplicationAddr()
}

func (m *member) promote() {
	m.t.Helper()
	if err := m.Promote(m.t.Context(), false); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) follow(address string) {
	m.t.Helper()
	if _, err := m.Follow(m.t.Context(), address); err != nil {
		m.t.Fatal(err)
	}
}

// same waits until every node is where the first one is, shard by shard, and has as many keys.
func same(t *testing.T, first *member, others ...*member) {
	t.Helper()
	for _, o := range others {
		eventually.True(t, patience, "the nodes are at one position", func() bool {
			a, b := first.Status().Shards, o.Status().Shards
			if len(a) != len(b) {
				return false
			}
			for i := range a {
				if a[i].Position != b[i].Position {
					return false
				}
			}
			return true
		})
		if a, b := first.do("DBSIZE"), o.do("DBSIZE"); a != b {
			t.Fatalf("%v keys and %v", a, b)
		}
	}
}

// syncs are a node's full syncs with a reason other than "empty", in either direction.
func (m *member) syncs() (n uint64) {
	for _, s := range m.Status().Shards {
		for reason, count := range s.FullSyncs {
			if reason != "empty" {
				n += count
			}
		}
	}
	return n
}

// A promoted replica's sibling, its own replica and the old primary go on with it, and nobody syncs in full (pitfall 6).
func TestPromotion(t *testing.T) {
	p := openNode(t, "p", "")
	a, b := openNode(t, "a", p.ReplicationAddr()), openNode(t, "b", p.ReplicationAddr())
	c := openNode(t, "c", a.ready())
	p.fill("before", 200)
	same(t, p, a, b, c)
	if path := c.Status().Path; len(path) != 3 || path[0] != p.ID().String() || path[1] != a.ID().String() || path[2] != c.ID().String() {
		t.Fatalf("the path of a chain of three is %v", path)
	}
	if _, err := a.Do(t.Context(), "SET", "k", "v"); err == nil || !strings.HasPrefix(err.Error(), "READONLY") {
		t.Fatalf("a replica answered a write with %v", err)
	}
	a.promote()
	a.promote() // twice is once
	a.fill("after", 100)
	b.follow(a.ReplicationAddr())
	p.follow(a.ReplicationAddr())
	if _, err := p.Do(t.Context(), "SET", "k", "v"); err == nil || !strings.HasPrefix(err.Error(), "READONLY") {
		t.Fatalf("the old primary answered a write with %v", err)
	}
	same(t, a, b, c, p)
	for _, m := range []*member{p, a, b, c} {
		if n := m.syncs(); n != 0 {
			t.Errorf("%s had %d full syncs", filepath.Base(m.opts.Dir), n)
		}
	}
	if got := c.do("GET", "after7"); got != "after" {
		t.Errorf("the chained replica has %v", got)
	}
	for _, s := range a.Status().Shards {
		if len(s.Lineage) != 2 {
			t.Errorf("shard %d's lineage is %v, want two generations", s.Shard, s.Lineage)
		}
	}
}

// Five promotions in a row, round robin over three nodes, under load. What was written at the old primary and is at the
// new one when it is promoted is all there is, so no history forks and nobody syncs in full.
func TestFivePromotions(t *testing.T) {
	nodes := []*member{openNode(t, "n0", "")}
	for i := range 2 {
		nodes = append(nodes, openNode(t, fmt.Sprint("n", i+1), nodes[0].ReplicationAddr()))
	}
	for round := range 5 {
		old, next, third := nodes[round%3], nodes[(round+1)%3], nodes[(round+2)%3]
		next.ready()
		third.ready()
		old.fill(fmt.Sprint("round", round, "-"), 50)
		same(t, old, next) // the third may be anywhere
		next.promote()
		next.fill(fmt.Sprint("at once", round, "-"), 20)
		old.follow(next.ReplicationAddr())
		third.follow(next.ReplicationAddr())
	}
	last := nodes[5%3]
	same(t, last, nodes...)
	if got := last.do("DBSIZE"); got != int64(5*70) {
		t.Errorf("%v keys, want 350", got)
	}
	for _, m := range nodes {
		if n := m.syncs(); n != 0 {
			t.Errorf("%s had %d full syncs", filepath.Base(m.opts.Dir), n)
		}
	}
}

// A role outlives restarts, whichever program opens the directory.
func TestRoleOutlivesRestarts(t *testing.T) {
	p := openNode(t, "p", "")
	r := openNode(t, "r", p.ReplicationAddr())
	r.ready()
	p.fill("k", 20)
	same(t, p, r)
	r.promote()
	r.do("SET", "mine", "1")
	before := r.Status().Shards
	r.close()
	r.open() // with Role: Replica and Primary: p
	if r.Role() != store.Primary || r.do("GET", "mine") != "1" {
		t.Fatalf("a promoted node came back as a %s", r.Role())
	}
	for i, s := range r.Status().Shards {
		if s.Position != before[i].Position {
			t.Errorf("shard %d is at %s, was at %s", i, s.Position, before[i].Position)
		}
	}
	p.follow(r.ReplicationAddr())
	p.close()
	p.open() // with Role: Primary
	if p.Role() != store.Replica {
		t.Fatalf("a demoted node came back as a %s", p.Role())
	}
	same(t, r, p)
	if n := p.syncs() + r.syncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
}

// An old primary with writes that nobody else has keeps them in a file when it joins again.
func TestDivergedPrimaryJoinsAgain(t *testing.T) {
	p := openNode(t, "p", "")
	r := openNode(t, "r", p.ReplicationAddr())
	r.ready()
	p.fill("k", 20)
	same(t, p, r)
	r.promote()
	p.fill("lost", 10)
	r.fill("k", 5)
	p.follow(r.ReplicationAddr())
	same(t, r, p)
	if v := p.do("GET", "lost1"); v != nil {
		t.Errorf("the old primary still shows %v", v)
	}
	files, err := filepath.Glob(filepath.Join(p.opts.Dir, "surplus", "*.frames"))
	if err != nil || len(files) != 2 {
		t.Errorf("surplus files %v, %v, want one for each shard", files, err)
	}
}

// A node never follows itself, nor one that gets its data from it; it stays what it is (pitfall: a chain that bites its tail).
func TestLoop(t *testing.T) {
	p := openNode(t, "p", "")
	a := openNode(t, "a", p.ReplicationAddr())
	b := openNode(t, "b", a.ready())
	b.ready()
	for _, m := range []*member{p, a, b} {
		if _, err := p.Follow(t.Context(), m.ReplicationAddr()); !errors.Is(err, node.ErrLoop) || p.Role() != store.Primary {
			t.Fatalf("following %s gave %v, and the node is a %s", filepath.Base(m.opts.Dir), err, p.Role())
		}
	}
	if _, err := a.Follow(t.Context(), b.ReplicationAddr()); !errors.Is(err, node.ErrLoop) || a.Primary() != p.ReplicationAddr() {
		t.Fatalf("following one's own replica gave %v, and the node follows %s", err, a.Primary())
	}
	p.do("SET", "k", "v")
	same(t, p, a, b)
}

// Two nodes that are told to follow each other at the same time end as a chain or as two that refuse, never as a loop of
// two that stream; a promotion of either ends it.
func TestLoopOfTwo(t *testing.T) {
	a, b := openNode(t, "a", ""), openNode(t, "b", "")
	done := make(chan error, 2)
	// Two goroutines, waited for below.
	go func() { _, err := a.Follow(context.Background(), b.ReplicationAddr()); done <- err }()
	go func() { _, err := b.Follow(context.Background(), a.ReplicationAddr()); done <- err }()
	for range 2 {
		if err := <-done; err != nil && !errors.Is(err, node.ErrLoop) {
			t.Fatal(err)
		}
	}
	streams := func(m *member) bool { f := m.Follower(); return f != nil && f.Streaming() }
	if streams(a) && streams(b) {
		eventually.True(t, patience, "the loop is cut", func() bool { return !streams(a) || !streams(b) })
	}
	a.promote()
	b.follow(a.ReplicationAddr())
	a.do("SET", "k", "v")
	same(t, a, b)
}

// A promotion waits for nobody (pitfall 33): the primary takes connections and says nothing.
func TestPromotionBesideADeadPrimary(t *testing.T) {
	p := openNode(t, "p", "")
	r := openNode(t, "r", p.ReplicationAddr())
	r.ready()
	p.fill("k", 20)
	same(t, p, r)
	base := p.opts.ReplicationPortBase
	p.close()
	silent, err := node.Listen("127.0.0.1", base, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, l := range silent {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}()
	began := time.Now()
	r.promote()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	r.do("SET", "k", "v")
	p.opts.ReplicationPortBase = 0
	p.open()
}

// A node without data cannot be promoted, and goes on trying to follow.
func TestPromotionWithoutData(t *testing.T) {
	r := openNode(t, "r", "127.0.0.1:1")
	if err := r.Promote(t.Context(), true); !errors.Is(err, node.ErrNotWhole) || r.Role() != store.Replica {
		t.Fatalf("%v, and the node is a %s", err, r.Role())
	}
	p := openNode(t, "p", "")
	r.follow(p.ReplicationAddr())
	p.do("SET", "k", "v")
	r.ready()
	same(t, p, r)
}

// Without the other half a node says what is missing.
func TestOneRole(t *testing.T) {
	p := openNode(t, "p", "")
	p.close()
	p.opts.Follow = nil
	p.open()
	if _, err := p.Follow(t.Context(), "127.0.0.1:1"); !errors.Is(err, node.ErrOneRole) || !strings.Contains(err.Error(), "replica.Follow") {
		t.Errorf("%v", err)
	}
}

// Pitfall 7: a replica of a replica does not stay attached while its parent goes to another history. It ends with that
// history too, and never with a mix.
func TestChainedReplicaLeavesWithItsParent(t *testing.T) {
	p, q := openNode(t, "p", ""), openNode(t, "q", "")
	a := openNode(t, "a", p.ReplicationAddr())
	c := openNode(t, "c", a.ready())
	p.fill("p", 60)
	q.fill("q", 40)
	same(t, p, a, c)
	a.follow(q.ReplicationAddr())
	q.fill("later", 10)
	same(t, q, a, c)
	if got := c.do("DBSIZE"); got != int64(50) {
		t.Errorf("the chained replica has %v keys, want the 50 of the other history", got)
	}
	if v := c.do("GET", "p1"); v != nil {
		t.Errorf("the chained replica still has %v of the history before", v)
	}
}

package node_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/replica"
)

// contents is all that a node's engines hold, the expiry index included.
func contents(t *testing.T, m *member) string {
	t.Helper()
	var b strings.Builder
	for _, s := range m.Shards() {
		err := s.Use(func(sm shard.StateMachine) error {
			v, err := sm.(*engine.Engine).NewView()
			if err != nil {
				return err
			}
			from, to := engine.KeyspaceBounds()
			err = v.Raw(from, to, func(k, value []byte) bool {
				fmt.Fprintf(&b, "%d %x=%x\n", s.ID(), k, value)
				return true
			})
			return errors.Join(err, v.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// identical waits until every node is where the first one is, and compares all that they hold.
func identical(t *testing.T, first *member, others ...*member) {
	t.Helper()
	same(t, first, others...)
	want := contents(t, first)
	for _, o := range others {
		if got := contents(t, o); got != want {
			t.Fatalf("%s holds\n%s%s holds\n%s", filepath.Base(first.opts.Dir), want, filepath.Base(o.opts.Dir), got)
		}
	}
}

// rewinds are a node's rejoins by difference as a replica and those that it served.
func (m *member) rewinds() (n uint64) {
	for _, s := range m.Status().Shards {
		n += s.Rewinds
	}
	return n
}

func (m *member) surplus() []string {
	m.t.Helper()
	files, err := filepath.Glob(filepath.Join(m.opts.Dir, "surplus", "*.frames"))
	if err != nil {
		m.t.Fatal(err)
	}
	return files
}

// Histories that part at their very beginning, since nothing was written before the promotion, are no other case.
func TestRejoinAtTheBeginning(t *testing.T) {
	p := openNode(t, "p", "")
	a := openNode(t, "a", p.ReplicationAddr())
	b := openNode(t, "b", p.ReplicationAddr())
	a.ready()
	b.ready()
	a.promote()
	b.close()
	a.fill("a", 50)
	p.fill("p", 50)
	if already, err := p.Follow(t.Context(), a.ReplicationAddr()); err != nil || already {
		t.Fatal(already, err)
	}
	identical(t, a, p)
	b.open() // at 0, where both histories begin
	b.follow(a.ReplicationAddr())
	identical(t, a, b)
	for name, m := range map[string]*member{"p": p, "a": a, "b": b} {
		if n := m.syncs(); n != 0 {
			t.Errorf("%s counts %d full syncs", name, n)
		}
	}
	if n := p.rewinds(); n < 2 || len(p.surplus()) < 2 {
		t.Errorf("%d rejoins by difference, and the surplus files %v", n, p.surplus())
	}
	// And it stays so.
	p.close()
	p.open()
	a.fill("more", 10)
	identical(t, a, p, b)
	if n := p.syncs(); n != 0 {
		t.Errorf("%d full syncs behind a restart", n)
	}
}

// left is an old primary with a surplus of every kind, and the replica that took its place and wrote on. Nobody follows yet;
// siblings were replicas of the old one until it wrote that surplus.
func left(t *testing.T, siblings ...**member) (old, next *member) {
	old = openNode(t, "old", "")
	next = openNode(t, "next", old.ReplicationAddr())
	next.ready()
	for i, s := range siblings {
		*s = openNode(t, fmt.Sprint("sibling", i), old.ReplicationAddr())
		(*s).ready()
	}
	old.fill("k", 60)
	for i := range 20 {
		old.do("SET", fmt.Sprint("dies", i), "v", "PXAT", time.Now().Add(time.Hour).UnixMilli()+int64(i))
	}
	same(t, old, next)
	for _, s := range siblings {
		same(t, old, *s)
		(*s).follow("127.0.0.1:1")
	}
	next.promote()

	old.fill("only old", 20)
	for i := range 15 {
		old.do("SET", fmt.Sprint("k", i), "lost")
		old.do("DEL", fmt.Sprint("k", 15+i))
		old.do("PERSIST", fmt.Sprint("dies", i))
		old.do("PEXPIRE", fmt.Sprint("k", 30+i), 5_000_000+i)
		old.do("APPEND", fmt.Sprint("k", 45+i), "lost")
	}
	for i := range 10 {
		next.do("SET", fmt.Sprint("k", 2*i), "new")
		next.do("DEL", fmt.Sprint("k", 2*i+15))
		next.do("PEXPIRE", fmt.Sprint("dies", 2*i), 6_000_000+i)
		next.do("SET", fmt.Sprint("only next", i), "v")
	}
	return old, next
}

// An old primary with a surplus joins the one that took its place by difference: nobody syncs in full, and what the two
// hold is the same, byte by byte: what it had overwritten, deleted, given a deadline or taken one from is back, what only
// it had is gone, and is in a file.
func TestRejoinByDifference(t *testing.T) {
	old, next := left(t)
	old.follow(next.ReplicationAddr())
	identical(t, next, old)
	next.fill("later", 20)
	identical(t, next, old)
	if n := old.syncs() + next.syncs(); n != 0 || old.rewinds() != 2 || next.rewinds() != 2 {
		t.Errorf("%d full syncs, %d rewinds here and %d served; want none, and one for each of 2 shards", n, old.rewinds(), next.rewinds())
	}
	if got := old.surplus(); len(got) != 2 {
		t.Errorf("surplus files %v, want one for each shard", got)
	}
	// It is a replica like any other: it outlives a restart, and takes over.
	old.close()
	old.open()
	identical(t, next, old)
	old.ready()
	old.promote()
	old.fill("again", 10)
	next.follow(old.ReplicationAddr())
	identical(t, old, next)
	if n := old.syncs() + next.syncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
}

// Five promotions in a row, round robin over three nodes, each beside a primary that goes on writing until it follows. What it
// wrote behind the promotion is undone, and nobody syncs in full.
func TestFivePromotionsBesideAWriter(t *testing.T) {
	nodes := []*member{openNode(t, "n0", "")}
	for i := range 2 {
		nodes = append(nodes, openNode(t, fmt.Sprint("n", i+1), nodes[0].ReplicationAddr()))
	}
	nodes[0].fill("before", 40) // a fork at 0 is no beginning to go back to
	same(t, nodes[0], nodes[1:]...)
	undone := uint64(0)
	for round := range 5 {
		old, next, third := nodes[round%3], nodes[(round+1)%3], nodes[(round+2)%3]
		next.ready()
		third.ready()
		var begun []uint64
		for _, s := range old.Shards() {
			begun = append(begun, s.Position().Offset)
		}
		stop := writeOn(old, fmt.Sprint("round", round))
		eventually.True(t, patience, "the old primary has written for a while", func() bool {
			for i, s := range old.Shards() {
				if s.Position().Offset < begun[i]+50 {
					return false
				}
			}
			return true
		})
		next.promote()
		next.fill(fmt.Sprint("at once", round, "-"), 20)
		eventually.True(t, patience, "the old primary has a surplus", func() bool {
			for i, s := range old.Shards() {
				if l := next.Shards()[i].Lineage(); s.Position().Offset <= l[len(l)-1].First {
					return false
				}
			}
			return true
		})
		old.follow(next.ReplicationAddr())
		stop()
		third.follow(next.ReplicationAddr())
		identical(t, next, old, third)
		undone += old.rewinds()
	}
	if undone == 0 {
		t.Error("nobody had to undo anything")
	}
	for _, m := range nodes {
		for _, s := range m.Status().Shards {
			if delete(s.FullSyncs, "empty"); len(s.FullSyncs) != 0 {
				t.Errorf("%s, shard %d: full syncs %v, %d rewinds", filepath.Base(m.opts.Dir), s.Shard, s.FullSyncs, s.Rewinds)
			}
		}
	}
}

// writeOn writes to a node until it is told to stop, or the node takes no writes any more. The goroutine is waited for by
// what is returned.
func writeOn(m *member, prefix string) (stop func()) {
	var stopped atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		for i := 0; !stopped.Load(); i++ {
			if _, err := m.Do(context.Background(), "SET", fmt.Sprint(prefix, "-", i%300), i); err != nil {
				return
			}
		}
	})
	return func() { stopped.Store(true); done.Wait() }
}

// A surplus that is larger than the limit, or deletes everything, is saved, and a full sync says diverged.
func TestSurplusThatIsTooMuch(t *testing.T) {
	for name, f := range map[string]struct {
		limit int64
		do    func(old *member)
	}{
		"over the limit": {1000, func(*member) {}},
		"never":          {-1, func(*member) {}},
		"a flush":        {0, func(old *member) { old.do("FLUSHALL"); old.do("SET", "a", "b") }},
	} {
		t.Run(name, func(t *testing.T) {
			old, next := left(t)
			f.do(old)
			old.close()
			old.opts.Follow = replica.Follow(replica.FollowerOptions{Backoff: replica.Backoff{Min: 10 * time.Millisecond, Patient: 20 * time.Millisecond}, SurplusLimit: f.limit})
			old.open()
			old.follow(next.ReplicationAddr())
			identical(t, next, old)
			for _, s := range old.Status().Shards {
				if s.Rewinds != 0 || s.FullSyncs["diverged"] != 1 {
					t.Errorf("shard %d: %d rewinds, full syncs %v", s.Shard, s.Rewinds, s.FullSyncs)
				}
			}
			if got := old.surplus(); len(got) != 2 {
				t.Errorf("surplus files %v, want one for each shard", got)
			}
		})
	}
}

// halfway is an old primary that has undone its surplus and is cut off before it got what came since. mend lets it dial.
func halfway(t *testing.T, siblings ...**member) (old, next *member, mend func()) {
	old, next = left(t, siblings...)
	var cut atomic.Bool
	var mu sync.Mutex
	dialled := map[string]bool{}
	cut.Store(true)
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		mu.Lock()
		again := dialled[address]
		dialled[address] = true
		mu.Unlock()
		if again && cut.Load() {
			return nil, errors.New("the network is down")
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
	old.close()
	old.opts.Follow = replica.Follow(replica.FollowerOptions{
		Backoff: replica.Backoff{Min: 10 * time.Millisecond, Patient: 20 * time.Millisecond}, Dial: dial,
	})
	old.open()
	old.follow(next.ReplicationAddr())
	unsettled := func() bool {
		for _, s := range old.Status().Shards {
			if !s.Unsettled {
				return false
			}
		}
		return true
	}
	eventually.True(t, patience, "both shards have undone their surplus", unsettled)
	check := func(when string) {
		t.Helper()
		if !unsettled() {
			t.Fatalf("%s it is settled", when)
		}
		for _, args := range [][]any{{"GET", "k1"}, {"DBSIZE"}, {"SCAN", "0"}, {"KEYS", "*"}, {"MGET", "k1", "k2", "k3"}} {
			if v, err := old.Do(t.Context(), args...); err == nil || !strings.HasPrefix(err.Error(), "LOADING") {
				t.Errorf("%s %v was answered with %v, %v", when, args, v, err)
			}
		}
		if err := old.Promote(t.Context(), true); !errors.Is(err, node.ErrNotWhole) {
			t.Errorf("%s a promotion gave %v", when, err)
		}
		if old.Status().Ready {
			t.Errorf("%s it says that it is ready", when)
		}
	}
	check("cut off")
	old.close()
	old.open()
	check("restarted")
	return old, next, func() { cut.Store(false) }
}

// Cut off in the middle of a rejoin, a node neither shows nor serves nor takes over with what it has, not even behind a
// restart; once it reaches its primary again, it goes on.
func TestCutOffInTheMiddleOfARejoin(t *testing.T) {
	old, next, mend := halfway(t)
	next.fill("later", 30)
	mend()
	identical(t, next, old)
	if n := old.syncs() + next.syncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
}

// The primary goes away in the middle of a rejoin. A node that was promoted before it heard of that primary begins as that
// one did, but it would never make the node's data whole: they are values of another history. So it is synced in full.
func TestAnotherHistoryInTheMiddleOfARejoin(t *testing.T) {
	var sibling *member
	old, next, mend := halfway(t, &sibling)
	sibling.promote()
	sibling.fill("sibling", 20)
	next.close()
	mend()
	old.follow(sibling.ReplicationAddr())
	identical(t, sibling, old)
	for _, s := range old.Status().Shards {
		if s.FullSyncs["diverged"] != 1 || s.Unsettled {
			t.Errorf("shard %d: full syncs %v, unsettled: %v", s.Shard, s.FullSyncs, s.Unsettled)
		}
	}
	// The one that was away has a surplus now.
	next.open()
	next.follow(sibling.ReplicationAddr())
	identical(t, sibling, next, old)
	if n := next.syncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
}

// The primary goes away in the middle of a rejoin, and one that has all that the node waits for takes its place: it goes on
// there.
func TestAnotherPrimaryInTheMiddleOfARejoin(t *testing.T) {
	var third *member
	old, next, mend := halfway(t, &third)
	third.follow(next.ReplicationAddr())
	same(t, next, third)
	next.fill("nobody has it", 10)
	next.close()
	third.promote()
	third.fill("third", 20)
	mend()
	old.follow(third.ReplicationAddr())
	identical(t, third, old)
	if n := old.syncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
	next.open()
	next.follow(third.ReplicationAddr())
	identical(t, third, next)
}

// A replica of an old primary has its surplus, too. It is cut off when its parent goes back, and goes back itself.
func TestChainRejoins(t *testing.T) {
	var leaf *member
	old, next := left(t, &leaf)
	leaf.follow(old.ReplicationAddr())
	same(t, old, leaf)
	old.follow(next.ReplicationAddr())
	identical(t, next, old, leaf)
	if n := old.syncs() + next.syncs() + leaf.syncs(); n != 0 || leaf.rewinds() != 2 {
		t.Errorf("%d full syncs, the leaf had %d rewinds", n, leaf.rewinds())
	}
}

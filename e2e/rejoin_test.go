package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// rewinds are a node's rejoins by difference since its process started.
func (n *node) rewinds() (out uint64) {
	for _, s := range n.mustStatus().Shards {
		out += s.Rewinds
	}
	return out
}

// promote makes the node a primary, which must not take long, whatever became of the old one (pitfall 33).
func (n *node) promote() {
	n.t.Helper()
	began := time.Now()
	n.command("REPLICAOF", "NO", "ONE")
	if took := time.Since(began); took > 3*time.Second {
		n.t.Errorf("%s: a promotion took %s", n.name, took)
	}
	wantEqual(n.t, "role of "+n.name, n.mustStatus().Role, "primary")
}

// noFullSyncs asserts that no node had a full sync but the one that filled it.
func noFullSyncs(t testing.TB, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		if c := n.counters(); c.allFullSyncs() != c.fullSyncs["empty"] {
			t.Errorf("%s: full syncs that nothing called for: %v", n.name, c)
		}
	}
}

func allStream(t testing.TB, shards int, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, 30*time.Second, n.name+" streams every shard", func() error { return streaming(n, shards) })
	}
}

// TestPromotions: five promotions in a row, round robin over three nodes, each beside a primary that lives and is written to
// until it is told to follow. Its surplus is undone, nobody syncs in full (pitfall 6), and a write that WAIT found on both
// replicas survives all of it. Who is answered -READONLY finds the new primary.
func TestPromotions(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	l := nodes[0].startLoad(loadOptions{clients: 3, pause: time.Millisecond, others: nodes, replicas: 2})
	for round := range 5 {
		old, next, third := nodes[round%3], nodes[(round+1)%3], nodes[(round+2)%3]
		allStream(t, 2, next, third)
		l.waitAcked(300, 15*time.Second)
		next.promote()
		third.follow(next)
		l.waitAcked(100, 15*time.Second) // at the old one, which does not know
		old.follow(next)
		l.waitAcked(100, 15*time.Second)
	}
	l.stop()
	if n := l.errors.Load(); n > 0 {
		t.Errorf("%d writes failed with something else than -READONLY, such as: %v", n, l.first.Load())
	}
	last := nodes[5%3]
	mirrors(t, last, nodes[6%3], nodes[7%3])
	l.unsettle() // Beside a new primary, the old one acknowledges what only it has.
	l.check(last)
	noFullSyncs(t, nodes...)
	var rewinds uint64
	for _, n := range nodes {
		for _, s := range n.mustStatus().Shards {
			rewinds += s.Rewinds
		}
	}
	if rewinds < 5 {
		t.Errorf("%d rejoins by difference in five promotions beside a primary that was written to", rewinds)
	}
}

// TestRejoinKilled kills an old primary at a random instant of its rejoin, again and again. Whatever it had undone by then, it
// ends with what the new primary has and without a full sync, and its surplus is in files that replctl reads.
func TestRejoinKilled(t *testing.T) {
	t.Parallel()
	r := rng(t)
	nodes := trio(t)
	old, next := nodes[0], nodes[1]
	nodes[2].stop()
	old.fill("before", 64<<10, 200)
	undone := uint64(0)
	rounds := 4
	if *long {
		rounds = 12
	}
	for round := range rounds {
		allStream(t, 2, next)
		eventually(t, 20*time.Second, next.name+" has everything", func() error { return caughtUp(old, next) })
		next.promote()
		next.fill(fmt.Sprint("new-", round, "-"), 512<<10, 200)
		old.fill(fmt.Sprint("surplus-", round, "-"), 4*mib, 200)
		old.fill(fmt.Sprint("new-", round, "-"), 256<<10, 100) // of the same names
		asked := make(chan error, 1)
		// It asks once, and its answer may be a broken connection; received below.
		go func() {
			asked <- old.rdb.Do(context.Background(), "REPLICAOF", "127.0.0.1", fmt.Sprint(next.base)).Err()
		}()
		hold(time.Duration(r.IntN(600)) * time.Millisecond)
		old.kill()
		<-asked
		before := old.files("surplus/*.frames")
		old.start()
		if old.mustStatus().Role == "primary" {
			old.follow(next)
		}
		allStream(t, 2, old)
		mirrors(t, next, old)
		noFullSyncs(t, old, next)
		undone += old.rewinds()
		after := old.files("surplus/*.frames")
		if len(after) < 2 {
			t.Fatalf("round %d: surplus files %v, before the restart %v; want one for each shard at least", round, after, before)
		}
		status, out, errs := command(t, 20*time.Second, "replctl", "surplus", "list", "--data-dir", old.dir)
		if status != 0 || strings.Count(out, ".frames") < 2 {
			t.Fatalf("round %d: replctl surplus list: %d\n%s%s", round, status, out, errs)
		}
		status, out, errs = command(t, 20*time.Second, "replctl", "surplus", "show", "--data-dir", old.dir)
		if status != 0 || !strings.Contains(out, fmt.Sprint("surplus-", round, "-")) {
			t.Fatalf("round %d: replctl surplus show: %d, %d bytes without what was lost in this round\n%s", round, status, len(out), errs)
		}
		old, next = next, old
	}
	t.Logf("%d rejoins by difference were seen by a process that lived to tell", undone)
}

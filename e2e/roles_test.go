package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/status"
)

// trio are a primary with two shards and two replicas of it, as programs.
func trio(t *testing.T) []*node {
	t.Helper()
	p := newPrimary(t, 2).start()
	nodes := []*node{p}
	for i := range 2 {
		nodes = append(nodes, newReplica(t, fmt.Sprint("replica", i+1), p.replication()).start())
	}
	for _, n := range nodes[1:] {
		eventually(t, 20*time.Second, n.name+" streams", func() error { return streaming(n, 2) })
	}
	return nodes
}

// command sends a command and fails the test if the reply is an error.
func (n *node) command(args ...any) {
	n.t.Helper()
	if err := n.rdb.Do(context.Background(), args...).Err(); err != nil {
		n.t.Fatalf("%s: %v: %v", n.name, args, err)
	}
}

func (n *node) follow(to *node) {
	n.t.Helper()
	n.command("REPLICAOF", "127.0.0.1", strconv.Itoa(to.base))
}

// waitRole waits until the node has the role.
func (n *node) waitRole(want string, within time.Duration) {
	n.t.Helper()
	eventually(n.t, within, n.name+" is a "+want, func() error {
		st, err := n.status()
		if err != nil {
			return err
		}
		return errorf(st.Role == want, "it is a %s", st.Role)
	})
}

// mirrors waits until every other node has what the primary has.
func mirrors(t *testing.T, primary *node, others ...*node) {
	t.Helper()
	for _, n := range others {
		eventually(t, 30*time.Second, n.name+" has caught up with "+primary.name, func() error { return caughtUp(primary, n) })
		identical(t, primary, n)
	}
}

// unwanted counts a node's full syncs for other reasons than that there was nothing yet.
func (n *node) unwanted() (out uint64) {
	for reason, count := range n.counters().fullSyncs {
		if reason != "empty" {
			out += count
		}
	}
	return out
}

// TestFailovers: five planned handovers, round robin over three nodes under load. Clients that are answered -READONLY look
// for the new primary and go on there: no write fails, none that was acknowledged is lost, and nobody syncs in full.
func TestFailovers(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	l := nodes[0].startLoad(loadOptions{clients: 2, pause: time.Millisecond, others: nodes})
	for round := range 5 {
		old, next, third := nodes[round%3], nodes[(round+1)%3], nodes[(round+2)%3]
		for _, n := range []*node{next, third} {
			eventually(t, 20*time.Second, n.name+" streams", func() error { return streaming(n, 2) })
		}
		l.waitAcked(200, 10*time.Second)
		wantEqual(t, "role of the old primary", old.mustStatus().Role, "primary")
		old.command("FAILOVER", "TO", "127.0.0.1", strings.TrimPrefix(next.addr, "127.0.0.1:"), "TIMEOUT", "10000")
		var f *status.Failover
		eventually(t, 15*time.Second, "the handover is over", func() error {
			f = old.mustStatus().Failover
			return errorf(f != nil && f.State == status.FailoverNone, "%+v", f)
		})
		if f.Result != "done" || f.Hold <= 0 || f.Hold > 5000 {
			t.Fatalf("round %d: %+v", round, f)
		}
		l.waitAcked(200, 10*time.Second)
		wantEqual(t, "role of the target", next.mustStatus().Role, "primary")
		wantEqual(t, "role of the old primary", old.mustStatus().Role, "replica")
		third.follow(next)
	}
	l.stop()
	last := nodes[5%3]
	mirrors(t, last, nodes[6%3], nodes[7%3])
	l.check(last)
	if n := l.errors.Load(); n > 0 {
		t.Errorf("%d writes failed, the first one by %v", n, l.first.Load())
	}
	if l.moved.Load() < 5 {
		t.Errorf("%d writes were sent on to a new primary in five handovers", l.moved.Load())
	}
	for _, n := range nodes {
		wantEqual(t, "unwanted full syncs of "+n.name, n.unwanted(), 0)
	}
}

// TestPromotionAfterAKill: the primary is killed, a replica is promoted beside it, the other replica, a replica of a
// replica and the old primary go on with it, and everybody keeps the role over restarts (pitfalls 6, 33).
func TestPromotionAfterAKill(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	p, a, b := nodes[0], nodes[1], nodes[2]
	chained := newReplica(t, "chained", a.replication()).start()
	eventually(t, 20*time.Second, "the chained replica streams", func() error { return streaming(chained, 2) })
	l := p.startLoad(loadOptions{clients: 2, pause: time.Millisecond})
	l.waitAcked(500, 10*time.Second)
	l.stop()
	for _, n := range []*node{a, b, chained} {
		eventually(t, 20*time.Second, n.name+" has caught up", func() error { return caughtUp(p, n) })
	}
	p.kill()
	began := time.Now()
	a.command("REPLICAOF", "NO", "ONE")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a promotion beside a dead primary took %s", took)
	}
	b.follow(a)
	second := a.startLoad(loadOptions{clients: 2, pause: time.Millisecond})
	second.waitAcked(200, 10*time.Second)
	p.start() // it was a primary, so it is one
	wantEqual(t, "role of the old primary", p.mustStatus().Role, "primary")
	p.follow(a)
	a.stop()
	second.stop()
	a.start() // by the program replica, with the flag --primary
	a.waitRole("primary", 10*time.Second)
	p.kill()
	p.start()
	p.waitRole("replica", 10*time.Second)
	for _, n := range []*node{p, b, chained} {
		eventually(t, 20*time.Second, n.name+" streams", func() error { return streaming(n, 2) })
	}
	mirrors(t, a, p, b, chained)
	l.check(a)
	second.check(a)
	for _, n := range []*node{p, a, b, chained} {
		wantEqual(t, "unwanted full syncs of "+n.name, n.unwanted(), 0)
	}
}

// TestSurplus: an old primary with writes that nobody else has keeps them in files when it follows the new one.
func TestSurplus(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	p, a := nodes[0], nodes[1]
	p.set("shared", "before")
	eventually(t, 20*time.Second, "the replica has it", func() error { return caughtUp(p, a) })
	a.command("REPLICAOF", "NO", "ONE")
	for i := range 20 {
		p.set(fmt.Sprint("only-here-", i), "surplus")
	}
	a.set("shared", "after")
	p.follow(a)
	eventually(t, 20*time.Second, "the old primary streams", func() error { return streaming(p, 2) })
	mirrors(t, a, p)
	if files := p.files("surplus/*.frames"); len(files) != 2 {
		t.Errorf("surplus files: %v, want one for each shard", files)
	}
}

// TestLoopGuards: a node never follows itself, nor one that gets its data from it, and stays what it is.
func TestLoopGuards(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	p, a := nodes[0], nodes[1]
	chained := newReplica(t, "chained", a.replication()).start()
	eventually(t, 20*time.Second, "the chained replica streams", func() error { return streaming(chained, 2) })
	for _, to := range []*node{p, a, chained} {
		err := p.rdb.Do(context.Background(), "REPLICAOF", "127.0.0.1", strconv.Itoa(to.base)).Err()
		if err == nil || !strings.Contains(err.Error(), "would follow itself") {
			t.Errorf("following %s: %v", to.name, err)
		}
		wantEqual(t, "role", p.mustStatus().Role, "primary")
	}
	p.set("k", "v")
	mirrors(t, p, a, chained)
}

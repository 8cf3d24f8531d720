package e2e

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/faultproxy"
	"github.com/understudy-kv/understudy/internal/status"
)

// failover begins a handover to a node, as its clients' address names it.
func (n *node) failover(to *node, more ...any) {
	n.t.Helper()
	host, port, err := net.SplitHostPort(to.addr)
	must(n.t, err)
	n.command(append([]any{"FAILOVER", "TO", host, port}, more...)...)
}

// failoverOver waits until no handover runs, and returns the last one.
func (n *node) failoverOver(within time.Duration) status.Failover {
	n.t.Helper()
	var f *status.Failover
	eventually(n.t, within, "the handover is over", func() error {
		s, err := n.status()
		if err != nil {
			return err
		}
		f = s.Failover
		return errorf(f != nil && f.State == status.FailoverNone, "%+v", f)
	})
	return *f
}

// failoverState waits until a handover is in that state.
func (n *node) failoverState(want string, within time.Duration) {
	n.t.Helper()
	eventually(n.t, within, "the handover is "+want, func() error {
		got := n.info("replication")["master_failover_state"]
		return errorf(got == want, "it is %s", got)
	})
}

// TestFailovers: five planned handovers, round robin over three nodes, under one load whose clients follow -READONLY. No
// acknowledged write is lost, none is refused, and nobody syncs in full.
func TestFailovers(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	l := nodes[0].startLoad(loadOptions{clients: 3, pause: time.Millisecond, others: nodes})
	for round := range 5 {
		old, next, third := nodes[round%3], nodes[(round+1)%3], nodes[(round+2)%3]
		allStream(t, 2, next, third)
		l.waitAcked(200, 10*time.Second)
		if round%2 == 0 {
			old.failover(next, "TIMEOUT", 10_000)
		} else {
			host, port, _ := net.SplitHostPort(next.replication()) // its replication ports name it as well
			old.command("FAILOVER", "TO", host, port)
		}
		f := old.failoverOver(15 * time.Second)
		if f.Result != "done" || f.Hold <= 0 || f.Hold > 5000 {
			t.Fatalf("round %d: %+v", round, f)
		}
		hold, err := strconv.ParseFloat(old.info("replication")["master_last_failover_hold_ms"], 64)
		if err != nil || hold < f.Hold-1 || hold > f.Hold+1 {
			t.Errorf("INFO tells a hold of %v ms, %v; REPL.STATUS one of %v", hold, err, f.Hold)
		}
		wantEqual(t, "role of the target", next.mustStatus().Role, "primary")
		wantEqual(t, "role of the old primary", old.mustStatus().Role, "replica")
		t.Logf("round %d: writes were held for %.1f ms", round, f.Hold)
		third.follow(next)
	}
	l.waitAcked(200, 10*time.Second)
	l.stop()
	if n := l.errors.Load(); n > 0 {
		t.Errorf("%d writes were refused, or their outcome is not known: %v", n, l.first.Load())
	}
	if l.moved.Load() == 0 {
		t.Error("no client was sent to another node")
	}
	last := nodes[5%3]
	mirrors(t, last, nodes[6%3], nodes[7%3])
	for _, n := range nodes {
		l.check(n)
	}
	noFullSyncs(t, nodes...)
}

// TestFailoverWithoutATarget: a handover to whoever has everything, and what is refused before anything is held.
func TestFailoverWithoutATarget(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	ctx := context.Background()
	errorHas(t, "FAILOVER at a replica", p.replica.rdb.Do(ctx, "FAILOVER").Err(), "not valid when server is a replica")
	errorHas(t, "FAILOVER to nobody", p.primary.rdb.Do(ctx, "FAILOVER", "TO", "127.0.0.1", 1).Err(), "is not a replica")
	errorHas(t, "ABORT of nothing", p.primary.rdb.Do(ctx, "FAILOVER", "ABORT").Err(), "No failover in progress")
	l := p.primary.startLoad(loadOptions{clients: 2, pause: time.Millisecond, others: []*node{p.primary, p.replica}})
	l.waitAcked(100, 10*time.Second)
	p.primary.command("FAILOVER")
	wantEqual(t, "result", p.primary.failoverOver(10*time.Second).Result, "done")
	l.waitAcked(100, 10*time.Second)
	l.stop()
	wantEqual(t, "writes that failed", l.errors.Load(), 0)
	allStream(t, 2, p.primary)
	mirrors(t, p.replica, p.primary)
	l.check(p.primary)
}

// TestFailoverThatDoesNotHappen: the target is paused. When the time is up, or the operator says ABORT, everything is as
// before: the roles, the links, the histories, and every write that was held is done.
func TestFailoverThatDoesNotHappen(t *testing.T) {
	for _, how := range []string{"timeout", "abort", "target killed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, setup{})
			l := p.primary.startLoad(loadOptions{clients: 2, pause: time.Millisecond, others: []*node{p.primary, p.replica}})
			l.waitAcked(200, 10*time.Second)
			before := p.marks()
			p.replica.pause()
			l.waitAcked(50, 10*time.Second) // which the target does not have
			args := []any{}
			if how != "abort" {
				args = append(args, "TIMEOUT", 1500)
			}
			p.primary.failover(p.replica, args...)
			p.primary.failoverState(status.FailoverWaiting, time.Second)
			acked := l.acked.Load()
			hold(500 * time.Millisecond)
			if more := l.acked.Load() - acked; more > 2*8 { // what was on its way
				t.Errorf("%d writes were acknowledged while writes are held", more)
			}
			must(t, p.primary.rdb.Get(context.Background(), l.clients[0].all[0].name).Err()) // Reads go on.
			switch how {
			case "abort":
				errorHas(t, "a second handover", p.primary.rdb.Do(context.Background(), "FAILOVER").Err(), "already in progress")
				p.primary.command("FAILOVER", "ABORT")
			case "target killed":
				p.replica.kill()
			}
			f := p.primary.failoverOver(5 * time.Second)
			if f.Result == "done" || f.Result == "" || f.Hold < 500 {
				t.Errorf("%+v, want a result that is not done and at least half a second of hold", f)
			}
			t.Logf("%+v", f)
			l.waitAcked(100, 5*time.Second)
			if how == "target killed" {
				p.replica.start()
			} else {
				p.replica.cont()
			}
			p.waitStreaming(15 * time.Second)
			l.stop()
			wantEqual(t, "writes that failed", l.errors.Load(), 0)
			wantEqual(t, "writes that were sent elsewhere", l.moved.Load(), 0)
			wantEqual(t, "role of the primary", p.primary.mustStatus().Role, "primary")
			wantEqual(t, "role of the replica", p.replica.mustStatus().Role, "replica")
			p.waitIdentical(10 * time.Second)
			l.check(p.replica)
			after := p.marks()
			wantEqual(t, "generations", fmt.Sprint(after.generations), fmt.Sprint(before.generations))
			noFullSyncs(t, p.primary, p.replica)
		})
	}
}

// TestFailoverWithoutAnAnswer: the target has everything, and then cannot be reached: whether it took over cannot be known, so
// nobody writes here, until the operator says ABORT. The old primary is one again then, with a history of its own, and loses nothing.
func TestFailoverWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, 2).start()
	target := newReplica(t, "target", p.replication())
	proxy := target.behindProxy(2)
	target.start()
	other := newReplica(t, "other", p.replication()).start()
	allStream(t, 2, target, other)
	l := p.startLoad(loadOptions{clients: 2, pause: time.Millisecond, others: []*node{p}})
	l.waitAcked(100, 10*time.Second)
	proxy.BlackHole(faultproxy.ToServer, true)
	proxy.BlackHole(faultproxy.ToClient, true)
	p.failover(target, "TIMEOUT", 5000)
	p.failoverState(status.FailoverInProgress, 5*time.Second)
	acked := l.acked.Load()
	throughout(t, 2*time.Second, "nobody writes", func() error {
		return errorf(l.acked.Load() == acked, "%d writes were acknowledged", l.acked.Load()-acked)
	})
	p.command("FAILOVER", "ABORT")
	f := p.failoverOver(5 * time.Second)
	if f.Result == "done" || f.Hold < 2000 {
		t.Errorf("%+v", f)
	}
	wantEqual(t, "role", p.mustStatus().Role, "primary")
	l.waitAcked(100, 5*time.Second)
	proxy.BlackHole(faultproxy.ToServer, false)
	proxy.BlackHole(faultproxy.ToClient, false)
	l.waitAcked(100, 5*time.Second)
	// The question may still arrive; the answer to it is no, or the target is a primary that nobody follows.
	if target.mustStatus().Role == "primary" {
		t.Error("the target took over after the handover was aborted")
	}
	l.stop()
	wantEqual(t, "writes that failed", l.errors.Load(), 0)
	allStream(t, 2, target, other)
	mirrors(t, p, target, other)
	l.check(other)
	noFullSyncs(t, p, target, other)
}

// TestFailoverOfTheDying kills one of the two at random instants of a handover under load. There are never two primaries, no
// acknowledged write is lost, and where nobody is left as primary, promoting either gives everything back.
func TestFailoverOfTheDying(t *testing.T) {
	for _, who := range []string{"target", "old primary"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			r := rng(t)
			p := newPair(t, setup{})
			old, next := p.primary, p.replica
			next.follow(old) // without the proxy
			all := []*node{old, next}
			ended := map[string]int{}
			for round := range 8 {
				allStream(t, 2, next)
				l := old.startLoad(loadOptions{clients: 2, pause: time.Millisecond, others: all})
				l.waitAcked(100, 10*time.Second)
				old.failover(next)
				hold(time.Duration(r.IntN(12_000)) * time.Microsecond)
				dying := next
				if who == "old primary" {
					dying = old
				}
				dying.kill()
				hold(time.Duration(r.IntN(300)) * time.Millisecond)
				dying.start()
				if who == "target" {
					old.failoverOver(20 * time.Second)
				}
				l.stop()
				primaries := func() (out []*node) {
					for _, n := range all {
						if n.mustStatus().Role == "primary" {
							out = append(out, n)
						}
					}
					return out
				}
				var now []*node
				// A takeover that was begun may end a moment after the old primary is back.
				await(2*time.Second, func() error { //nolint:errcheck // nobody is an answer too
					now = primaries()
					return errorf(len(now) == 1, "%d primaries", len(now))
				})
				switch len(now) {
				case 2:
					t.Fatalf("round %d: two primaries", round)
				case 1:
					ended[fmt.Sprint("primary: ", map[bool]string{true: "old", false: "target"}[now[0] == old])]++
				case 0:
					ended["nobody"]++
					all[r.IntN(2)].promote()
					now = primaries()
				}
				next = all[0]
				if old = now[0]; old == next {
					next = all[1]
				}
				l.check(old)
				if next.mustStatus().Primary != old.replication() {
					t.Errorf("round %d: %s follows %s, want %s", round, next.name, next.mustStatus().Primary, old.replication())
				}
			}
			allStream(t, 2, next)
			mirrors(t, old, next)
			noFullSyncs(t, all...)
			t.Logf("after the kills: %v", ended)
		})
	}
}

// TestFailoverInAChain: a chained replica takes over from the replica that it follows no more than from its root; the root's
// other replicas go on with whoever it follows.
func TestFailoverInAChain(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	p, a, b := nodes[0], nodes[1], nodes[2]
	chained := newReplica(t, "chained", a.replication()).start()
	allStream(t, 2, chained)
	err := a.rdb.Do(context.Background(), "FAILOVER").Err()
	errorHas(t, "FAILOVER at a replica with replicas", err, "replica")
	l := p.startLoad(loadOptions{clients: 2, pause: time.Millisecond, others: []*node{p, a, b, chained}})
	l.waitAcked(100, 10*time.Second)
	p.failover(a, "TIMEOUT", 10_000)
	wantEqual(t, "result", p.failoverOver(15*time.Second).Result, "done")
	l.waitAcked(200, 10*time.Second)
	// b still follows the old primary, which follows a: a chain. Nobody had to be told.
	allStream(t, 2, p, b, chained)
	l.stop()
	wantEqual(t, "writes that failed", l.errors.Load(), 0)
	mirrors(t, a, p, b, chained)
	wantEqual(t, "nodes above b, itself included", len(b.mustStatus().Path), 3)
	noFullSyncs(t, p, a, b, chained)
	for _, n := range []*node{p, b, chained} {
		if role := cli(t, n, "", "ROLE"); !strings.HasPrefix(role, "slave\n") {
			t.Errorf("ROLE of %s: %q", n.name, role)
		}
	}
	wantEqual(t, "ROLE of a", strings.SplitN(cli(t, a, "", "ROLE"), "\n", 2)[0], "master")
	wantEqual(t, "a write by redis-cli", cli(t, a, "", "SET", "by", "redis-cli"), "OK")
	mirrors(t, a, b)
}

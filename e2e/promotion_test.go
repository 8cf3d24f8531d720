package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/faultproxy"
)

// behindProxy puts a proxy in front of the node's replication ports, which is from now on what it announces and what others
// are given. The node must not have been started.
func (n *node) behindProxy(shards int) *faultproxy.Proxy {
	n.t.Helper()
	at := freePorts(n.t, shards)
	p, err := faultproxy.Start(faultproxy.Options{Port: at, Target: n.replication(), Ports: shards})
	must(n.t, err)
	n.t.Cleanup(func() { p.Close() })
	n.args = append(n.args, "--announce-port-base", fmt.Sprint(at))
	n.base = at
	return p
}

func errorHas(t testing.TB, what string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want an error with %q", what, err, text)
	}
}

// TestPromotionBesideASilentPrimary: a promotion asks nothing of a primary that is stopped, or that nothing comes from or goes to,
// whether the links know of it already or not (pitfall 33).
func TestPromotionBesideASilentPrimary(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"paused", "black hole", "black hole while connecting", "paused while syncing"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, setup{replica: []string{"--sync-rate", "2MiB"}})
			p.primary.fill("k", mib, 1000)
			p.waitCaughtUp(10 * time.Second)
			hole := func() {
				p.proxy.BlackHole(faultproxy.ToClient, true)
				p.proxy.BlackHole(faultproxy.ToServer, true)
			}
			switch how {
			case "paused":
				p.primary.pause()
			case "black hole":
				hole()
			case "black hole while connecting":
				p.proxy.Cut()
				hole()
				eventually(t, 10*time.Second, "the links wait for an answer", func() error {
					for _, s := range p.replica.mustStatus().Shards {
						if s.Link.State != "handshake" {
							return fmt.Errorf("shard %d: %s", s.Shard, linkText(s.Link))
						}
					}
					return nil
				})
			case "paused while syncing":
				// Another history, so that the data set that is there is to be replaced; it stays whole until it is.
				other := newPrimaryNamed(t, "other", 2).start()
				other.fill("other", 16*mib, 4096)
				p.replica.follow(other)
				eventually(t, 20*time.Second, "full syncs run", func() error {
					return errorf(p.replica.snapshotBytes() > mib, "%d bytes", p.replica.snapshotBytes())
				})
				other.pause()
			}
			p.replica.promote()
			p.replica.set("k", "written at the new primary")
			eventually(t, 5*time.Second, "it has what it had", func() error {
				n, err := p.replica.rdb.DBSize(context.Background()).Result()
				want := int64(mib/1000) + 1
				return errorf(err == nil && n >= want-8 && n <= want, "%d keys, %v, want about %d", n, err, want)
			})
			if staged := p.replica.files("data-*/shard-*/staging/*"); len(staged) > 0 {
				t.Errorf("a primary keeps what it staged: %v", staged)
			}
		})
	}
}

// TestKillDuringPromotion kills a node while it is promoted. What it is when it comes back is one or the other, and what
// it lacks is done by saying it again. Two nodes take turns, and neither ever needs a full sync.
func TestKillDuringPromotion(t *testing.T) {
	t.Parallel()
	r := rng(t)
	p := newPair(t, setup{})
	next, old := p.replica, p.primary
	next.args[1] = p.primary.replication() // without the proxy
	next.follow(old)
	was := map[string]int{}
	for round := range 8 {
		allStream(t, 2, next)
		l := old.startLoad(loadOptions{clients: 2, pause: time.Millisecond})
		l.waitAcked(50, 10*time.Second)
		l.stop()
		eventually(t, 10*time.Second, next.name+" has everything", func() error { return caughtUp(old, next) })
		asked := make(chan error, 1)
		// It asks once, and its answer may be a broken connection; received below.
		go func() { asked <- next.rdb.Do(context.Background(), "REPLICAOF", "NO", "ONE").Err() }()
		hold(time.Duration(r.IntN(20_000)) * time.Microsecond)
		next.kill()
		answered := <-asked == nil
		next.start()
		role := next.mustStatus().Role
		was[role]++
		if answered && role != "primary" {
			t.Fatalf("round %d: the promotion was answered with OK, and the node is a %s after a kill", round, role)
		}
		if role == "replica" {
			err := next.rdb.Set(context.Background(), "k", "v", 0).Err()
			errorHas(t, "a write to a replica", err, "READONLY")
			next.promote()
		}
		next.set("k", fmt.Sprint(round))
		l.check(next)
		old.follow(next)
		old, next = next, old
	}
	mirrors(t, old, next)
	noFullSyncs(t, old, next)
	t.Logf("after the kills: %v", was)
}

// TestRetargetInAFullSync: a replica with live data that is told to follow somebody else in the middle of a full sync
// discards what it staged, and not what it has (pitfalls 17, 18).
func TestRetargetInAFullSync(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{replica: []string{"--sync-rate", "2MiB"}})
	p.primary.fill("mine", mib, 1000)
	p.waitCaughtUp(20 * time.Second)
	before := keyspace(t, p.replica)
	other := newPrimaryNamed(t, "other", 2).start()
	other.fill("other", 24*mib, 4096)
	p.replica.follow(other)
	eventually(t, 20*time.Second, "full syncs run", func() error {
		return errorf(p.replica.snapshotBytes() > 2*mib, "%d bytes", p.replica.snapshotBytes())
	})
	wantEqual(t, "keys while a full sync runs", len(keyspace(t, p.replica)), len(before))
	p.replica.follow(p.primary)
	p.waitStreaming(10 * time.Second)
	if staged := p.replica.files("data-*/shard-*/staging/*"); len(staged) > 0 {
		t.Errorf("what was staged of the other primary is still there: %v", staged)
	}
	c := p.replica.counters()
	if c.resumes < 2 {
		t.Errorf("%v, want a resume of each shard", c)
	}
	p.mirror(10 * time.Second)
	p.waitIdentical(10 * time.Second)
	// And the other way round: one without data changes its mind.
	fresh := newReplica(t, "fresh", other.replication(), "--sync-rate", "2MiB").start()
	eventually(t, 20*time.Second, "full syncs run", func() error {
		return errorf(fresh.snapshotBytes() > mib, "%d bytes", fresh.snapshotBytes())
	})
	fresh.follow(p.primary)
	allStream(t, 2, fresh)
	mirrors(t, p.primary, fresh)
}

// TestChainedReplicaFollowsItsParent: a chained replica is cut when its parent leaves the history that it streamed, and goes
// on with it on the new one, also where both had more than the new primary (pitfall 7).
func TestChainedReplicaFollowsItsParent(t *testing.T) {
	t.Parallel()
	primary := newPrimary(t, 2)
	proxy := primary.behindProxy(2)
	primary.start()
	parent := newReplica(t, "parent", primary.replication()).start()
	next := newReplica(t, "next", primary.replication()).start()
	allStream(t, 2, parent, next)
	chained := newReplica(t, "chained", parent.replication()).start()
	last := newReplica(t, "last", chained.replication()).start()
	allStream(t, 2, chained, last)
	all := []*node{parent, next, chained, last}
	l := primary.startLoad(loadOptions{clients: 2, pause: time.Millisecond})
	l.waitAcked(500, 10*time.Second)
	l.stop()
	for _, n := range all {
		eventually(t, 10*time.Second, n.name+" has everything", func() error { return caughtUp(primary, n) })
	}
	// The one to be promoted is stopped while the others get more.
	next.kill()
	l2 := primary.startLoad(loadOptions{clients: 2, pause: time.Millisecond})
	l2.waitAcked(500, 10*time.Second)
	l2.stop()
	for _, n := range []*node{parent, chained, last} {
		eventually(t, 10*time.Second, n.name+" has everything", func() error { return caughtUp(primary, n) })
	}
	must(t, proxy.Down())
	next.start()
	next.promote()
	l3 := next.startLoad(loadOptions{clients: 2, pause: time.Millisecond})
	l3.waitAcked(100, 10*time.Second)
	parent.follow(next)
	allStream(t, 2, parent, chained, last)
	l3.waitAcked(200, 10*time.Second)
	l3.stop()
	mirrors(t, next, parent, chained, last)
	for _, n := range []*node{next, parent, chained, last} {
		l.check(n)
		l3.check(n)
	}
	noFullSyncs(t, all...)
	wantEqual(t, "nodes above the last one, itself included", len(last.mustStatus().Path), 4)
	// The old primary joins at the end of the chain.
	must(t, proxy.Up())
	primary.follow(last)
	allStream(t, 2, primary)
	mirrors(t, next, primary)
	noFullSyncs(t, primary)
}

// TestRolesSurviveTheBinary: the program sets the role at the first start only. What a node became since is what it is,
// whichever program opens its directory.
func TestRolesSurviveTheBinary(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	p, a, b := nodes[0], nodes[1], nodes[2]
	p.set("k", "1")
	mirrors(t, p, a, b)
	p.stop()
	a.promote()
	b.follow(a)
	p.start()
	p.follow(a)
	allStream(t, 2, p, b)
	a.stop()
	b.kill()
	p.kill()
	// a was started as a replica and is a primary; p the other way round. Each is now opened by the other program.
	a.role, a.args = "primary", a.args[2:] // without --primary
	p.role, p.args = "replica", p.args[2:] // without --shards; it knows whom it follows
	a.start()
	wantEqual(t, "role of a", a.mustStatus().Role, "primary")
	p.start()
	b.start()
	wantEqual(t, "role of p", p.mustStatus().Role, "replica")
	allStream(t, 2, p, b)
	a.set("k", "2")
	mirrors(t, a, p, b)
	noFullSyncs(t, nodes...)
}

// TestMutualFollowers: of two nodes that were told to follow each other while they could not ask, one says so; both serve what
// they have, and are set right by promoting one.
func TestMutualFollowers(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	p, a, b := nodes[0], nodes[1], nodes[2]
	p.set("k", "1")
	mirrors(t, p, a, b)
	a.stop()
	p.follow(a) // which cannot be asked
	a.start()   // and follows p, as it did
	eventually(t, 20*time.Second, "one of them says that it would follow itself", func() error {
		for _, n := range []*node{p, a} {
			loops := 0
			for _, s := range n.mustStatus().Shards {
				if s.Link != nil && s.Link.State != "streaming" && strings.Contains(s.Link.LastRefusal+s.Link.LastError, "loop") {
					loops++
				}
			}
			if loops == 2 {
				return n.proc.logged("loop")
			}
		}
		return fmt.Errorf("neither does")
	})
	for _, n := range nodes {
		wantEqual(t, "k at "+n.name, n.rdb.Get(context.Background(), "k").Val(), "1")
	}
	p.promote()
	allStream(t, 2, a, b)
	p.set("k", "2")
	mirrors(t, p, a, b)
	noFullSyncs(t, nodes...)
	// A chain of three back to its beginning is refused before anything is given up.
	b.follow(a)
	allStream(t, 2, b)
	err := p.rdb.Do(context.Background(), "REPLICAOF", "127.0.0.1", fmt.Sprint(b.base)).Err()
	errorHas(t, "following the end of one's own chain", err, "follow itself")
	wantEqual(t, "role", p.mustStatus().Role, "primary")
}

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestMinReplicas: writes are refused while fewer replicas than asked for have applied what is young enough, and taken again
// when they have. A replica that is connected but stopped counts no longer; reads go on; all of it can be changed at run time.
func TestMinReplicas(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{primary: []string{"--min-replicas-to-write", "1", "--min-replicas-max-lag", "2s"}})
	ctx := context.Background()
	write := func() error { return p.primary.rdb.Set(ctx, "k", "v", 0).Err() }
	eventually(t, 10*time.Second, "writes are taken", write)
	p.replica.pause()
	paused := time.Now()
	refused := func() error {
		err := write()
		return errorf(err != nil && strings.HasPrefix(err.Error(), "NOREPLICAS"), "%v", err)
	}
	eventually(t, 6*time.Second, "writes are refused", refused)
	if took := time.Since(paused); took < 1500*time.Millisecond {
		t.Errorf("writes were refused %s after the last ack, 2 s are allowed", took)
	}
	wantEqual(t, "a read", p.primary.rdb.Get(ctx, "k").Val(), "v")
	wantEqual(t, "min_slaves_good_slaves", p.primary.info("replication")["min_slaves_good_slaves"], "0")
	p.replica.cont()
	eventually(t, 5*time.Second, "writes are taken again", write)
	wantEqual(t, "min_slaves_good_slaves", p.primary.info("replication")["min_slaves_good_slaves"], "1")
	p.primary.command("CONFIG", "SET", "min-replicas-to-write", "2")
	eventually(t, 5*time.Second, "one replica is too few", refused)
	second := newReplica(t, "second", p.primary.replication()).start()
	eventually(t, 10*time.Second, "two replicas are enough", write)
	second.stop()
	eventually(t, 10*time.Second, "one replica is too few again", refused)
	p.primary.command("CONFIG", "SET", "min-replicas-to-write", "0")
	eventually(t, 5*time.Second, "nobody is asked for", write)
	p.waitIdentical(10 * time.Second)
}

// TestMaxStaleness: a replica whose data may be older than allowed answers reads -STALE, whether its link is down or its
// primary stopped, and reads again as soon as it hears from the primary.
func TestMaxStaleness(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{replica: []string{"--replica-max-staleness", "2s"}})
	ctx := context.Background()
	p.primary.set("k", "v")
	p.waitCaughtUp(10 * time.Second)
	read := func() error { return p.replica.rdb.Get(ctx, "k").Err() }
	throughout(t, 3*time.Second, "an idle mirror is fresh", read)
	stale := func() error {
		err := read()
		return errorf(err != nil && strings.HasPrefix(err.Error(), "STALE"), "%v", err)
	}
	for _, fault := range []struct {
		what       string
		begin, end func()
	}{
		{"the link is cut", func() { must(t, p.proxy.Down()) }, func() { must(t, p.proxy.Up()) }},
		{"the primary is paused", p.primary.pause, p.primary.cont},
	} {
		began := time.Now()
		fault.begin()
		eventually(t, 6*time.Second, "reads are refused: "+fault.what, stale)
		if took := time.Since(began); took < 500*time.Millisecond {
			t.Errorf("%s: reads were refused after %s, with heartbeats each second and 2 s allowed", fault.what, took)
		}
		must(t, p.replica.rdb.Ping(ctx).Err())
		fault.end()
		eventually(t, 10*time.Second, "reads are answered", read)
	}
	must(t, p.proxy.Down())
	eventually(t, 6*time.Second, "reads are refused", stale)
	p.replica.command("CONFIG", "SET", "replica-max-staleness", "0s")
	eventually(t, 3*time.Second, "old data is served again", read)
	// A primary is never stale.
	p.replica.command("CONFIG", "SET", "replica-max-staleness", "2s")
	eventually(t, 6*time.Second, "reads are refused", stale)
	p.replica.promote()
	eventually(t, 3*time.Second, "a primary reads its data", read)
}

// TestTokens: who takes a token where he wrote, and hands it to a replica or a chained one, reads what he wrote there. A token is bound
// to a history: after a promotion that lost the write it is refused, where the same offset has been reached by others.
func TestTokens(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	p, a, b := nodes[0], nodes[1], nodes[2]
	chained := newReplica(t, "chained", a.replication()).start()
	allStream(t, 2, chained)
	ctx := context.Background()
	l := p.startLoad(loadOptions{clients: 2, pause: time.Millisecond})
	token := func(n *node) string {
		t.Helper()
		text, err := n.rdb.Do(ctx, "REPL.TOKEN").Text()
		must(t, err)
		return text
	}
	waitFor := func(n *node, token string, ms int) error { return n.rdb.Do(ctx, "REPL.WAITFOR", token, ms).Err() }
	for i := range 50 {
		k, v := fmt.Sprint("k", i%7), fmt.Sprint(i)
		p.set(k, v)
		at := token(p)
		for _, n := range []*node{a, b, chained} {
			must(t, waitFor(n, at, 5000))
			wantEqual(t, "what is read at "+n.name, n.rdb.Get(ctx, k).Val(), v)
		}
	}
	l.stop()
	for _, n := range []*node{a, b, chained} {
		eventually(t, 10*time.Second, n.name+" has everything", func() error { return caughtUp(p, n) })
	}
	// b misses what comes next, and is promoted. What it writes takes the same offsets.
	common := token(p)
	b.kill()
	for i := range 20 {
		p.set(fmt.Sprint("lost", i), "x")
	}
	lost := token(p)
	must(t, waitFor(a, lost, 5000))
	p.pause() // so that b does not get them now
	b.start()
	b.promote()
	p.cont()
	if err := waitFor(b, lost, 100); err == nil {
		t.Error("a node that never had the writes takes the token of them")
	}
	for i := range 40 {
		b.set(fmt.Sprint("other", i), "x")
	}
	must(t, waitFor(b, common, 0))
	if err := waitFor(b, lost, 100); err == nil {
		t.Error("the same offsets of another history satisfy the token")
	}
	p.follow(b)
	a.follow(b)
	allStream(t, 2, a, chained)
	at := token(b)
	for _, n := range []*node{a, chained} {
		must(t, waitFor(n, at, 10_000))
		wantEqual(t, "what is read at "+n.name, n.rdb.Get(ctx, "other39").Val(), "x")
		errorHas(t, "the token of what was lost, at "+n.name, waitFor(n, lost, 100), "lost")
	}
	errorHas(t, "nonsense", waitFor(a, "nonsense", 100), "token")
}

// TestWaitAndPromotion: WAIT and WAITAOF count nobody for what he acknowledged in another history (pitfall 11), and count him
// again once he follows.
func TestWaitAndPromotion(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	p, a, b := nodes[0], nodes[1], nodes[2]
	ctx := context.Background()
	wait := func(n *node, replicas, ms int) int64 {
		t.Helper()
		c := n.rdb.Conn()
		defer c.Close()
		for i := range 8 {
			must(t, c.Set(ctx, fmt.Sprint("w", i), time.Now().String(), 0).Err())
		}
		got, err := c.Wait(ctx, replicas, time.Duration(ms)*time.Millisecond).Result()
		must(t, err)
		return got
	}
	wantEqual(t, "WAIT 2", wait(p, 2, 5000), 2)
	a.promote()
	wantEqual(t, "WAIT 1 at a primary that nobody follows", wait(a, 1, 300), 0)
	wantEqual(t, "WAIT 2 at the old one, which has one replica left", wait(p, 2, 300), 1)
	b.follow(a)
	allStream(t, 2, b)
	wantEqual(t, "WAIT 1", wait(a, 1, 5000), 1)
	p.follow(a)
	allStream(t, 2, p)
	wantEqual(t, "WAIT 2", wait(a, 2, 5000), 2)
	c := a.rdb.Conn()
	defer c.Close()
	must(t, c.Set(ctx, "durable", "x", 0).Err())
	got, err := c.Do(ctx, "WAITAOF", 1, 2, 5000).Slice()
	must(t, err)
	wantEqual(t, "WAITAOF", fmt.Sprint(got), "[1 2]")
	mirrors(t, a, b, p)
}

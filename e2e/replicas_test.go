package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/faultproxy"
)

// TestFailingReplicas: a replica that is killed, one that is paused and one whose link breaks all the time never stall a
// shard of the primary, nor the replica beside them (pitfalls 31, 33, 38).
func TestFailingReplicas(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	broken := newReplica(t, "broken", p.primary.replication()).start()
	paused := newReplica(t, "paused", p.primary.replication()).start()
	good := newReplica(t, "good", p.primary.replication()).start()
	all := []*node{p.replica, broken, paused, good}
	for _, n := range all {
		eventually(t, 20*time.Second, n.name+" streams", func() error { return streaming(n, p.shards) })
	}
	l := p.primary.startLoad(loadOptions{value: 500, pause: time.Millisecond})
	paused.pause()
	acked, still := l.acked.Load(), 0
	for i := range 40 {
		switch i % 8 {
		case 0:
			p.proxy.CutAfter(faultproxy.ToClient, 10_000)
		case 3:
			broken.kill()
		case 5:
			broken.start()
		}
		hold(250 * time.Millisecond)
		now := l.acked.Load()
		if now == acked {
			still++
		}
		acked = now
	}
	if still > 2 {
		t.Errorf("in %d of 40 quarters of a second no write was acknowledged", still)
	}
	if err := streaming(good, p.shards); err != nil {
		t.Errorf("the good replica: %v", err)
	}
	l.stop()
	if n := l.errors.Load(); n > 0 {
		t.Errorf("%d writes failed", n)
	}
	paused.cont()
	for _, n := range all {
		eventually(t, 30*time.Second, n.name+" catches up", func() error { return caughtUp(p.primary, n) })
		l.check(n)
	}
	identical(t, p.primary, good)
	identical(t, p.primary, paused)
	c := p.primary.counters()
	wantEqual(t, "full syncs", c.allFullSyncs(), uint64(len(all)*p.shards))
	wantEqual(t, "resumes of the good replica", good.counters().resumes, 0)
	wantEqual(t, "full syncs of the good replica", good.counters().allFullSyncs(), uint64(p.shards))
}

// TestWritesDuringFullSync: a flush of everything, counters and deletes in the middle of full syncs of every shard
// neither erase newer data nor are applied twice (pitfalls 13, 14, 15), for two joiners that share a snapshot or not.
func TestWritesDuringFullSync(t *testing.T) {
	t.Parallel()
	p := prepare(t, setup{shards: 3, replica: []string{"--sync-rate", "6MiB"}})
	p.primary.start()
	p.primary.fill("k", 24*mib, 4096)
	ctx := context.Background()
	count := func(n int) {
		for range n {
			pipe := p.primary.rdb.Pipeline()
			for k := range 20 {
				pipe.Incr(ctx, fmt.Sprint("counter:", k))
				pipe.Append(ctx, fmt.Sprint("list:", k), "x")
			}
			_, err := pipe.Exec(ctx)
			must(t, err)
		}
	}
	count(10)
	p.replica.start()
	second := newReplica(t, "second", p.primary.replication(), "--sync-rate", "6MiB").start()
	eventually(t, 20*time.Second, "full syncs run", func() error {
		return errorf(p.replica.snapshotBytes() > mib && second.snapshotBytes() > mib, "%d and %d bytes", p.replica.snapshotBytes(), second.snapshotBytes())
	})
	count(20)
	must(t, p.primary.rdb.FlushAll(ctx).Err())
	count(30)
	p.primary.fill("new", 2*mib, 4096)
	p.waitStreaming(60 * time.Second)
	p.waitIdentical(30 * time.Second)
	eventually(t, 60*time.Second, "the second replica catches up", func() error { return caughtUp(p.primary, second) })
	identical(t, p.primary, second)
	for k := range 20 {
		got, err := second.rdb.Get(ctx, fmt.Sprint("counter:", k)).Result()
		if err != nil || got != "30" {
			t.Errorf("counter %d: %q, %v, want 30", k, got, err)
		}
	}
	wantEqual(t, "full syncs of the first", p.replica.counters().allFullSyncs(), 3)
	wantEqual(t, "full syncs of the second", second.counters().allFullSyncs(), 3)
}

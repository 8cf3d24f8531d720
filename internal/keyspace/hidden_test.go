package keyspace_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/keyspace/kstest"
	"github.com/understudy-kv/understudy/internal/shard"
)

// A read-only keyspace, as a replica's, hides a key whose deadline has passed, in every way of looking, and counts it, but
// deletes nothing: only the primary does, and its delete replicates (pitfall 24).
func TestReadOnlyHidesAndDeletesNothing(t *testing.T) {
	var clock, ticks atomic.Int64
	clock.Store(1_000_000)
	now := func() time.Time { return time.UnixMilli(clock.Load()) }
	shards := kstest.Shards(t, 1, nil, func(o *shard.Options) {
		o.Now = func() time.Time { ticks.Add(1); return now() }
	})
	k := keyspace.New(keyspace.Options{Now: now})
	k.SetShards(shards)
	s := k.NewSession(hook{})
	defer s.Close()
	expect(t, s, "+OK|+OK|", "SET stays x", fmt.Sprint("SET goes x PXAT ", clock.Load()+1000))
	k.SetReadOnly(true)
	clock.Add(2000)
	at := shards[0].Position()

	before := ticks.Load()
	eventually.True(t, 10*time.Second, "several ticks pass", func() bool { return ticks.Load() >= before+3 })
	expect(t, s, "$-1|:0|:-2|+none|:1|*1|$5|stays|*2|$1|0|*1|$5|stays|",
		"GET goes", "EXISTS goes", "TTL goes", "TYPE goes", "DBSIZE", "KEYS *", "SCAN 0")
	if c, err := k.Count(); err != nil || c.Keys != 1 || c.Expired != 1 {
		t.Fatalf("%+v, %v: want one key and one hidden", c, err)
	}
	if got := shards[0].Position(); got != at {
		t.Fatalf("at %s, was at %s: a replica wrote", got, at)
	}

	k.SetReadOnly(false)
	eventually.True(t, 10*time.Second, "the primary deletes it", func() bool { return shards[0].Position().Offset == at.Offset+1 })
	if c, err := k.Count(); err != nil || c.Keys != 1 || c.Expired != 0 {
		t.Fatalf("%+v, %v: want one key and none hidden", c, err)
	}
}

// Package kstest opens shards for tests of what stands above them.
package kstest

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/shard"
)

// Shards opens n shards with engines, on fs or, if that is nil, in memory, and closes them when the test ends. change
// may alter the options of each.
func Shards(t testing.TB, n int, fs vfs.FS, change func(*shard.Options)) []*shard.Shard {
	t.Helper()
	if fs == nil {
		fs = vfs.NewMem()
	}
	shared := engine.NewShared(32<<20, n, 0)
	t.Cleanup(shared.Close)
	shards := make([]*shard.Shard, n)
	for i := range shards {
		o := shard.Options{
			FS: fs, Dir: fmt.Sprintf("shard-%03d", i), Shard: i, Writable: true, BootID: "test", Fsync: shard.FsyncNo,
			BacklogMemory: 4 << 20,
			Open: func(e shard.Env) (shard.StateMachine, error) {
				return engine.Open(e.Dir, engine.Options{FS: fs, Shared: shared, BeforeFlush: e.BeforeFlush, OnError: e.OnError})
			},
		}
		if change != nil {
			change(&o)
		}
		s, err := shard.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		shards[i] = s
		t.Cleanup(func() {
			if err := s.Close(); err != nil && s.Err() == nil {
				t.Errorf("closing shard %d: %v", i, err)
			}
		})
	}
	return shards
}

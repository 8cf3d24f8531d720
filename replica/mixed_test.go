package replica

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// TestOneShardResumesAnotherSyncs (pitfall 20): two shards of one data set, of which one can resume and the other was
// evicted. Readers see the first go on at once, and the second's old data until the whole snapshot is loaded: each shard
// alone is at one position of its history, and the node is not caught up before both are.
func TestOneShardResumesAnotherSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resumes, syncs := newFakePrimary(t), syncedPrimary(t)
		resumes.shards, syncs.shards, syncs.shard = 2, 2, 1
		syncs.refuse = &wire.Refusal{Version: wire.Version, Code: wire.CodeBusy, Text: "come again"}
		network := &network{t: t, primaries: []*fakePrimary{resumes, syncs}}
		store := filledStore(vfs.NewMem(), 0, "")
		second := filledStore(store.fs, 1, "old\n").shards[0]
		second.id, second.dir = 1, "shard-1"
		if err := store.fs.MkdirAll(second.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		store.shards = append(store.shards, second)
		f := network.follow(store, nil)
		resumes.write("new")
		time.Sleep(30 * time.Second)
		synctest.Wait() // what happens at this very instant is over

		if got := store.shards[0].text(); got != "new\n" {
			t.Fatalf("shard 0 has %q, it can resume", got)
		}
		if got := second.text(); got != "old\n" {
			t.Fatalf("shard 1 has %q before its snapshot is there", got)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := f.WaitCaughtUp(ctx); err == nil {
			t.Fatal("caught up without shard 1")
		}
		if f.Streaming() || f.Lag().Streaming {
			t.Fatal("the node streams, one of its shards does not")
		}

		syncs.locked(func() { syncs.refuse = nil })
		caughtUp(t, f)
		s := f.Status()
		if s[0].Resumes == 0 || len(s[0].FullSyncs) != 0 || s[1].FullSyncs["evicted"] != 1 || len(s[1].FullSyncs) != 1 {
			t.Fatalf("shard 0: %d resumes, full syncs %v; shard 1: full syncs %v", s[0].Resumes, s[0].FullSyncs, s[1].FullSyncs)
		}
		if store.switches != 0 || store.shards[0].text() != "new\n" || second.text() != syncedText {
			t.Fatalf("%d switches, %q and %q", store.switches, store.shards[0].text(), second.text())
		}
		network.close(f)
	})
}

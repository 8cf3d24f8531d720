package replica

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// TestAnotherShardCount (pitfalls 3, 20): the new data set is filled beside the old one, which readers see until every
// shard of the new one is loaded.
func TestAnotherShardCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &network{t: t}
		for i := range 3 {
			p := syncedPrimary(t)
			p.shard, p.shards = uint32(i), 3
			network.primaries = append(network.primaries, p)
		}
		late := network.primaries[2]
		late.refuse = &wire.Refusal{Version: wire.Version, Code: wire.CodeBusy, Text: "come again"}
		store := filledStore(vfs.NewMem(), 1, "old\n")
		old := store.shards[0]
		f := network.follow(store, nil)
		time.Sleep(30 * time.Second)
		synctest.Wait() // what happens at this very instant is over
		if store.switches != 0 || store.shards[0] != old {
			t.Fatal("readers see a data set that is not complete")
		}
		s := f.Status()
		if len(s) != 3 || s[0].Link.State != "streaming" || s[2].Refusals["busy"] == 0 {
			t.Fatalf("%+v", s)
		}
		late.locked(func() { late.refuse = nil })
		caughtUp(t, f)
		if store.switches != 1 || len(store.shards) != 3 {
			t.Fatalf("%d switches", store.switches)
		}
		for i, s := range f.Status() {
			if store.shards[i].text() != syncedText || s.FullSyncs["shard-layout"] != 1 || len(s.FullSyncs) != 1 {
				t.Fatalf("shard %d: %q, %v", i, store.shards[i].text(), s.FullSyncs)
			}
		}
		network.close(f)
	})
	// All of another count, and all empty: that is a lost data directory, not a new layout.
	synctest.Test(t, func(t *testing.T) {
		network := &network{t: t}
		for i := range 2 {
			p := newFakePrimary(t)
			p.lineage = wire.Lineage{{Generation: gen2}}
			p.snap(1, snapshotOf("")...)
			p.shard, p.shards = uint32(i), 2
			network.primaries = append(network.primaries, p)
		}
		store := filledStore(vfs.NewMem(), 1, "old\n")
		f := network.follow(store, nil)
		time.Sleep(time.Minute)
		synctest.Wait() // what happens at this very instant is over
		if store.switches != 0 || store.shards[0].text() != "old\n" {
			t.Fatal("wiped")
		}
		for _, s := range f.Status() {
			if !strings.Contains(s.Error, "--accept-empty-primary") {
				t.Fatalf("no alarm: %q", s.Error)
			}
		}
		// The primary is in use: it is right.
		network.primaries[1].write("new")
		caughtUp(t, f)
		time.Sleep(2 * time.Second)
		synctest.Wait() // what happens at this very instant is over
		if store.switches != 1 || store.shards[1].text() != "new\n" || f.Status()[0].Error != "" {
			t.Fatalf("%d switches, %q", store.switches, f.Status()[0].Error)
		}
		network.close(f)
	})
}

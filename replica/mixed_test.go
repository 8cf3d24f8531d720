package replica

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// addShard gives the store of one shard a second one, as filledStore does the first.
func addShard(t *testing.T, store *fakeStore, position uint64, list string) *fakeShard {
	t.Helper()
	s := filledStore(store.fs, position, list).shards[0]
	s.id, s.dir = 1, "shard-1"
	if err := store.fs.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	store.shards = append(store.shards, s)
	return s
}

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
		second := addShard(t, store, 1, "old\n")
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

// TestMixed: a promotion is told when one shard has loaded a snapshot and another one has not, also when that one
// streamed before, when the primary is gone since and after a restart; and is not told when none has loaded one, nor when the
// snapshots are for a data set of their own.
func TestMixed(t *testing.T) {
	// setup makes two shards, both streaming. Then the primary forgets its log, and shard 1's snapshot does not arrive.
	setup := func(t *testing.T) (*network, *fakeStore, *Follower, *bool) {
		first, second := newFakePrimary(t), newFakePrimary(t)
		first.shards, second.shards, second.shard = 2, 2, 1
		blocked := new(bool)
		network := &network{t: t, primaries: []*fakePrimary{first, second}}
		store := filledStore(vfs.NewMem(), 0, "")
		addShard(t, store, 0, "")
		f := network.follow(store, nil)
		caughtUp(t, f)
		if err := f.Mixed(); err != nil {
			t.Fatal(err)
		}
		network.mu.Lock()
		network.down = true
		network.mu.Unlock()
		for _, p := range network.primaries {
			p.cutAll()
			p.write("a", "b", "c", "d")
			p.snap(1, snapshotOf("a\nb\nc\nd\n")...)
		}
		second.damage = func(_ file, _ uint64, data []byte) {
			if *blocked {
				data[0]++
			}
		}
		return network, store, f, blocked
	}
	up := func(n *network, down bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.down = down
	}
	synctest.Test(t, func(t *testing.T) {
		network, store, f, damaged := setup(t)
		network.primaries[1].locked(func() { *damaged = true })
		up(network, false)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		what := "shard 0 has gone over to the primary's data and shard 1 ("
		expectMixed := func(when string) {
			t.Helper()
			if err := f.Mixed(); err == nil || !strings.Contains(err.Error(), what) {
				t.Fatalf("%s: %v", when, err)
			}
		}
		expectMixed("shard 1's snapshot is damaged again and again")
		up(network, true)
		for _, p := range network.primaries {
			p.cutAll()
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if l := f.Status()[1].Link; l.State == "streaming" || l.State == "syncing" {
			t.Fatalf("shard 1 is %s, its primary is gone", l.State)
		}
		expectMixed("the primary is gone")
		network.close(f)
		expectMixed("the links have ended")
		// Another process knows it from the data directory, whatever is left of the transfer.
		if err := discardStaging(store.fs, "shard-1"); err != nil {
			t.Fatal(err)
		}
		what = "a shard has gone over to a primary's data, and shard 0 ("
		f = network.follow(store, nil)
		expectMixed("after a restart")
		up(network, false)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if s := f.Status(); s[0].Link.State != "streaming" || s[1].Link.State == "streaming" {
			t.Fatalf("shard 0 is %s, shard 1 %s", s[0].Link.State, s[1].Link.State)
		}
		what = "shard 1"
		expectMixed("shard 0 streams")
		network.primaries[1].locked(func() { *damaged = false })
		caughtUp(t, f)
		network.close(f)
		if err := f.Mixed(); err != nil || store.mixed || store.marks != 2 {
			t.Fatalf("%v; recorded: %t, and that %d times", err, store.mixed, store.marks)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// A shard that streamed before is of the old history, too, while its link is down.
		network, _, f, _ := setup(t)
		network.primaries[1].locked(func() {
			network.primaries[1].refuse = &wire.Refusal{Version: wire.Version, Code: wire.CodeBusy, Text: "come again"}
		})
		up(network, false)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if err := f.Mixed(); err == nil || !strings.Contains(err.Error(), "shard 0 has gone over to the primary's data and shard 1 (its link: backoff) has not") {
			t.Fatal(err)
		}
		network.primaries[1].locked(func() { network.primaries[1].refuse = nil })
		caughtUp(t, f)
		if err := f.Mixed(); err != nil {
			t.Fatal(err)
		}
		network.close(f)
	})
	synctest.Test(t, func(t *testing.T) {
		// What was begun and not loaded has changed nothing, also over a restart.
		network, store, f, damaged := setup(t)
		network.primaries[0].locked(func() {
			network.primaries[0].refuse = &wire.Refusal{Version: wire.Version, Code: wire.CodeBusy, Text: "come again"}
		})
		network.primaries[1].locked(func() { *damaged = true })
		up(network, false)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if err := f.Mixed(); err != nil || !f.runners()[1].figures().Owes {
			t.Fatal("the full sync has changed nothing:", err)
		}
		network.close(f)
		if _, _, err := openStaging(store.fs, "shard-1", wire.Position{Generation: wire.Generation{1}, Offset: 4}, &wire.Manifest{Snapshot: wire.ID{1}}, minBlock, nil); err != nil {
			t.Fatal(err)
		}
		up(network, true)
		f = network.follow(store, nil)
		time.Sleep(30 * time.Second)
		if err := f.Mixed(); err != nil || store.marks != 0 {
			t.Fatalf("after a restart: %v; %d records", err, store.marks)
		}
		network.close(f)
	})
	synctest.Test(t, func(t *testing.T) {
		// One shard before, two now: a data set beside the one that readers see.
		first, second := syncedPrimary(t), syncedPrimary(t)
		first.shards, second.shards, second.shard = 2, 2, 1
		second.refuse = &wire.Refusal{Version: wire.Version, Code: wire.CodeBusy, Text: "come again"}
		network := &network{t: t, primaries: []*fakePrimary{first, second}}
		store := filledStore(vfs.NewMem(), 1, "old\n")
		f := network.follow(store, nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if store.switches != 0 || len(store.next) != 2 || store.next[0].installs != 1 {
			t.Fatalf("%d switches, %d shards in the making", store.switches, len(store.next))
		}
		if err := f.Mixed(); err != nil {
			t.Fatalf("readers see the old data set, whole: %v", err)
		}
		network.close(f)
		// Were it not whole, it would stay so until readers see the new one.
		store.mixed = true
		f = network.follow(store, nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if err := f.Mixed(); err == nil || store.switches != 0 {
			t.Fatalf("readers see what was mixed before: %v, %d switches", err, store.switches)
		}
		second.locked(func() { second.refuse = nil })
		caughtUp(t, f)
		if err := f.Mixed(); err != nil || store.switches != 1 || store.marks != 0 {
			t.Fatalf("%v; %d switches, %d records", err, store.switches, store.marks)
		}
		network.close(f)
	})
}

// TestMixedIsTold: the node hears of it before a shard gets its new state, and again when all shards have it.
func TestMixedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakePrimary(t), newFakePrimary(t)
		first.shards, second.shards, second.shard = 2, 2, 1
		network := &network{t: t, primaries: []*fakePrimary{first, second}}
		store := filledStore(vfs.NewMem(), 0, "")
		addShard(t, store, 0, "")
		var mu sync.Mutex
		var told []string
		f := network.follow(store, func(o *FollowerOptions) {
			o.OnChange = func() {
				installs := 0
				for _, s := range store.shards {
					s.locked(func() { installs += s.installs })
				}
				mu.Lock()
				defer mu.Unlock()
				told = append(told, fmt.Sprint(store.mixed, installs))
			}
		})
		caughtUp(t, f)
		mu.Lock()
		told = nil // of the primary's place in its chain, which does not change behind that
		mu.Unlock()
		network.mu.Lock()
		network.down = true
		network.mu.Unlock()
		for _, p := range network.primaries {
			p.cutAll()
			p.write("a", "b", "c", "d")
			p.snap(1, snapshotOf("a\nb\nc\nd\n")...)
		}
		network.mu.Lock()
		network.down = false
		network.mu.Unlock()
		caughtUp(t, f)
		network.close(f)
		if want := []string{"true 0", "false 2"}; !slices.Equal(told, want) {
			t.Fatalf("told %q, want %q: what is recorded, and how many shards have their snapshot", told, want)
		}
	})
}

// A data set of another shard count is not shown while one of its shards is of a session that has ended: it may be of another history.
func TestDataSetOfOneHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := syncedPrimary(t), syncedPrimary(t)
		first.shards, second.shards, second.shard = 2, 2, 1
		busy := &wire.Refusal{Version: wire.Version, Code: wire.CodeBusy, Text: "come again"}
		second.refuse = busy
		network := &network{t: t, primaries: []*fakePrimary{first, second}}
		store := filledStore(vfs.NewMem(), 1, "old\n")
		f := network.follow(store, nil)
		time.Sleep(30 * time.Second) // shard 0 has its snapshot
		say := func(p *fakePrimary, refusal *wire.Refusal) {
			p.locked(func() { p.refuse = refusal })
			p.cutAll()
			time.Sleep(30 * time.Second)
			synctest.Wait()
		}
		say(first, busy)
		say(second, nil)
		if store.switches != 0 || len(store.next) != 2 || store.next[0].installs != 1 || store.next[1].installs != 1 {
			t.Fatalf("%d switches, %d shards in the making", store.switches, len(store.next))
		}
		if l := f.Status(); l[0].Link.State == "streaming" || l[1].Link.State != "streaming" {
			t.Fatalf("shard 0 is %s, shard 1 is %s", l[0].Link.State, l[1].Link.State)
		}
		say(first, nil)
		caughtUp(t, f)
		if err := f.Mixed(); err != nil || store.switches != 1 || store.marks != 0 {
			t.Fatalf("%v; %d switches, %d records", err, store.switches, store.marks)
		}
		network.close(f)
	})
}

package replica

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/polite"
	"github.com/understudy-kv/understudy/wire"
)

// snapshotOf makes the files of a snapshot whose state is the list.
func snapshotOf(list string) []file {
	return []file{{"CURRENT", []byte("one\n")}, {"empty", nil}, {"list", []byte(list)}, {"sub/dir/file", []byte(strings.Repeat("z", 100))}}
}

// syncedPrimary has a snapshot at offset 4 and two frames behind it.
func syncedPrimary(t testing.TB) *fakePrimary {
	p := newFakePrimary(t)
	p.write("a", "b", "c", "d")
	p.snap(1, snapshotOf("a\nb\nc\nd\n")...)
	p.write("e")
	p.write("f")
	return p
}

const syncedText = "a\nb\nc\nd\ne\nf\n"

func emptyStore() *fakeStore { return &fakeStore{fs: vfs.NewMem()} }

// TestFullSyncAcrossCuts cuts the link behind every byte of a first full sync: it goes on where it stopped, nothing is
// shipped twice but the chunk that was cut, and a half-loaded shard never counts as one that has data (pitfalls 9, 10).
func TestFullSyncAcrossCuts(t *testing.T) {
	for i := int64(0); ; i++ {
		var uncut bool
		synctest.Test(t, func(t *testing.T) {
			p := syncedPrimary(t)
			network := &network{t: t, primaries: []*fakePrimary{p}, wrap: cutFirst(i, false)}
			store := emptyStore()
			f := network.follow(store, nil)
			caughtUp(t, f)
			if got := store.shards[0].text(); got != syncedText {
				t.Fatalf("cut behind byte %d: %q", i, got)
			}
			total := 0
			for _, f := range p.files {
				total += len(f.content)
			}
			if p.chunkBytes > total+p.chunk || store.shards[0].installs != 1 {
				t.Fatalf("cut behind byte %d: %d bytes shipped of %d, %d installs", i, p.chunkBytes, total, store.shards[0].installs)
			}
			for _, h := range p.hellos {
				if !h.Position.IsZero() && h.Position.Offset < 4 {
					t.Fatalf("cut behind byte %d: HELLO says %s", i, h.Position)
				}
			}
			if _, err := store.fs.Stat(store.shards[0].dir + "/staging"); err == nil {
				t.Fatalf("cut behind byte %d: the staging directory is still there", i)
			}
			uncut = network.dials == 1
			network.close(f)
		})
		if uncut {
			return
		}
	}
}

// TestFullSyncAcrossRestarts: what a process has staged, the next one goes on with; and files that another snapshot
// shares are not shipped again.
func TestFullSyncAcrossRestarts(t *testing.T) {
	for _, sameSnapshot := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := syncedPrimary(t)
			network := &network{t: t, primaries: []*fakePrimary{p}, wrap: cutFirst(1200, false)}
			store := emptyStore()
			f := network.follow(store, nil)
			for len(p.hellosNow()) < 2 {
				time.Sleep(time.Millisecond)
				network.mu.Lock()
				network.down = network.dials > 0
				network.mu.Unlock()
				if network.down {
					break
				}
			}
			time.Sleep(time.Second)
			network.close(f)
			p.mu.Lock()
			shipped := p.chunkBytes
			if !sameSnapshot {
				p.snapshot = wire.ID{9}
			}
			p.mu.Unlock()
			if shipped < 50 {
				t.Fatalf("only %d bytes were shipped before the cut", shipped)
			}
			network.down = false
			f = network.follow(store, nil)
			caughtUp(t, f)
			if got := store.shards[0].text(); got != syncedText {
				t.Fatalf("%q", got)
			}
			if last := p.hellos[len(p.hellos)-1]; last.Snapshot != (wire.ID{1}) {
				t.Fatalf("HELLO names snapshot %s", last.Snapshot)
			}
			if p.chunkBytes > 4+8+100+p.chunk {
				t.Fatalf("%d bytes shipped", p.chunkBytes)
			}
			network.close(f)
		})
	}
}

// TestDamagedSnapshotFile: a byte flipped in a file is found by its checksum, and the file is fetched again; staged
// bytes that the disk changed are too.
func TestDamagedSnapshotFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := syncedPrimary(t)
		times := 0
		p.damage = func(f file, from uint64, data []byte) {
			if f.name == "list" && from == 7 && times < 3 {
				times++
				data[0] ^= 1
			}
		}
		network := &network{t: t, primaries: []*fakePrimary{p}}
		store := emptyStore()
		f := network.follow(store, nil)
		caughtUp(t, f)
		if got := store.shards[0].text(); got != syncedText || network.dials != 1 || times != 3 {
			t.Fatalf("%q after %d dials", got, network.dials)
		}
		network.close(f)
	})
	synctest.Test(t, func(t *testing.T) {
		p := syncedPrimary(t)
		for i := range p.files {
			if p.files[i].name == "list" {
				p.damage = func(f file, from uint64, data []byte) {
					if f.name == "list" {
						data[0] ^= 1
					}
				}
			}
		}
		network := &network{t: t, primaries: []*fakePrimary{p}}
		store := filledStore(vfs.NewMem(), 1, "old\n")
		f := network.follow(store, nil)
		time.Sleep(3 * time.Second)
		synctest.Wait() // what happens at this very instant is over
		// Pitfalls 18, 19: what readers saw, they still see; the link says why.
		l := f.Status()[0].Link
		if store.shards[0].text() != "old\n" || store.shards[0].Position().Offset != 1 || l.State != "stopped" || !strings.Contains(l.LastError, "damaged") {
			t.Fatalf("%q at %s, link %+v", store.shards[0].text(), store.shards[0].Position(), l)
		}
		if n := len(p.fetches); n != 1+maxRefetches {
			t.Fatalf("%d fetches", n)
		}
		p.locked(func() { p.damage = nil })
		caughtUp(t, f)
		if got := store.shards[0].text(); got != syncedText {
			t.Fatalf("%q", got)
		}
		network.close(f)
	})
}

// TestLoadError leaves the old data, the old position, and the link trying (pitfall 19).
func TestLoadError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := syncedPrimary(t)
		network := &network{t: t, primaries: []*fakePrimary{p}}
		store := filledStore(vfs.NewMem(), 1, "old\n")
		store.shards[0].installErr = errors.New("bad manifest")
		f := network.follow(store, nil)
		time.Sleep(time.Minute)
		synctest.Wait() // what happens at this very instant is over
		s := f.Status()[0]
		if store.shards[0].text() != "old\n" || s.Offset != 1 || !s.Link.Stale || !strings.Contains(s.Link.LastError, "bad manifest") {
			t.Fatalf("%+v", s.Link)
		}
		if len(p.acks) != 0 || network.dials > 15 || p.chunkBytes > 112 {
			t.Fatalf("%d acks, %d dials, %d bytes", len(p.acks), network.dials, p.chunkBytes)
		}
		store.shards[0].locked(func() { store.shards[0].installErr = nil })
		caughtUp(t, f)
		network.close(f)
	})
}

// TestEmptyPrimaryDoesNotWipe (pitfall 18): the link stops with an alarm, readers keep their data, and when the operator
// insists, or the primary's data is back, it goes on.
func TestEmptyPrimaryDoesNotWipe(t *testing.T) {
	for _, accept := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newFakePrimary(t)
			p.lineage = wire.Lineage{{Generation: gen2}}
			p.snap(1, snapshotOf("")...)
			network := &network{t: t, primaries: []*fakePrimary{p}}
			store := filledStore(vfs.NewMem(), 1, "old\n")
			f := network.follow(store, func(o *FollowerOptions) { o.AcceptEmptyPrimary = accept })
			time.Sleep(61 * time.Second) // not a multiple of the wait
			synctest.Wait()              // what happens at this very instant is over
			s := f.Status()[0]
			if accept {
				if store.shards[0].text() != "" || s.FullSyncs["unknown-generation"] != 1 {
					t.Fatalf("%q, %+v, link %+v", store.shards[0].text(), s, *s.Link)
				}
			} else if store.shards[0].text() != "old\n" || s.Link.State != "stopped" || len(s.FullSyncs) != 0 || len(p.fetches) != 0 {
				t.Fatalf("%q, %+v, link %+v", store.shards[0].text(), s, *s.Link)
			}
			if n := network.dials; !accept && (n < 3 || n > 13) {
				t.Fatalf("%d dials in a minute", n)
			}
			network.close(f)
		})
	}
}

// TestFullSyncHurries: while a full sync is fetched, the process has a processor more where a goroutine keeps one; not behind it, and not
// behind one that was cut.
func TestFullSyncHurries(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	defer polite.Keep(func() {})()
	for _, cut := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newFakePrimary(t)
			p.write("a")
			p.chunk = 64 << 10
			p.snap(1, file{"list", []byte("a\n")}, file{"big", make([]byte, 1<<20)})
			network := &network{t: t, primaries: []*fakePrimary{p}}
			f := network.follow(emptyStore(), func(o *FollowerOptions) { o.SyncRate = 128 << 10 })
			time.Sleep(4 * time.Second)
			synctest.Wait()
			if n := runtime.GOMAXPROCS(0); n != 3 {
				t.Errorf("%d processors during the sync, want 3", n)
			}
			if !cut {
				caughtUp(t, f)
				synctest.Wait()
				if n := runtime.GOMAXPROCS(0); n != 2 {
					t.Errorf("%d processors behind the sync, want 2", n)
				}
			}
			network.close(f)
			if n := runtime.GOMAXPROCS(0); n != 2 {
				t.Errorf("%d processors behind the link, want 2", n)
			}
		})
	}
}

// TestSyncRateAndProgress: a limited sync takes its time, keeps the link alive meanwhile, and tells how far it is.
func TestSyncRateAndProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePrimary(t)
		p.write("a")
		p.chunk = 64 << 10
		p.snap(1, file{"list", []byte("a\n")}, file{"big", make([]byte, 1<<20)})
		network := &network{t: t, primaries: []*fakePrimary{p}}
		store := emptyStore()
		f := network.follow(store, func(o *FollowerOptions) { o.SyncRate = 32 << 10 })
		begin := time.Now()
		time.Sleep(16 * time.Second)
		synctest.Wait() // what happens at this very instant is over
		s := f.Status()[0].Link.Sync
		if s == nil || s.Bytes < 300<<10 || s.Bytes > 700<<10 || s.Rate < 25<<10 || s.Rate > 40<<10 || s.ETA < 8 || s.ETA > 30 || s.Reason != "empty" {
			t.Fatalf("progress %+v", s)
		}
		caughtUp(t, f)
		if d := time.Since(begin); d < 30*time.Second || d > 40*time.Second {
			t.Fatalf("took %s", d)
		}
		if network.dials != 1 || p.keepalives < 25 {
			t.Fatalf("%d dials, %d keepalives", network.dials, p.keepalives)
		}
		network.close(f)
	})
}

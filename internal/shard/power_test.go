package shard_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// frames are all frames of a shard's log.
func frames(t *testing.T, s *shard.Shard) (out []byte) {
	t.Helper()
	if err := s.Log().Replay(0, func(f wire.Frame) error { out = append(out, f.Raw...); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// crashAtSync is a file system whose machine loses power at each sync of a log's file: what was appended is there in
// any part. check gets what is left of each.
func crashAtSync(seed uint64) (fs vfs.FS, armed *atomic.Bool, left func() []*vfs.MemFS) {
	mem := vfs.NewCrashableMem()
	armed = new(atomic.Bool)
	var clones []*vfs.MemFS
	injected := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
		if armed.Load() && sync && strings.Contains(op.Path, "/log-") {
			clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng(seed)}))
		}
		return nil
	}))
	return injected, armed, func() []*vfs.MemFS { return clones }
}

// Under always, too, the power may go between the append and its sync. What was appended then, several frames of a
// replica's run or the first ones of a new segment, may be there in any part: that is no corruption, and nothing of it
// was ever told.
func TestPowerLossBeforeTheSync(t *testing.T) {
	source := open(t, options(vfs.NewMem()))
	for i := range 8 {
		mustWrite(t, source, fmt.Sprint("k", i), strings.Repeat("v", 9000))
	}
	all := frames(t, source)
	for seed := range uint64(40) {
		fs, armed, left := crashAtSync(seed)
		o := options(fs)
		o.Fsync, o.Writable, o.SegmentBytes = shard.FsyncAlways, false, 32<<10
		s := open(t, o)
		staged := "/staged"
		if err := s.Install(filledDir(t, fs, staged, source, 0), wire.Position{Generation: source.Lineage().Current()}, source.Lineage()); err != nil {
			t.Fatal(err)
		}
		armed.Store(true)
		half := len(all) / 2
		if err := s.Ingest(all[:half], 0, 4); err != nil {
			t.Fatal(err)
		}
		if err := s.Ingest(all[half:], 4, 8); err != nil {
			t.Fatal(err)
		}
		armed.Store(false)
		for i, lost := range left() {
			again := o
			again.FS, again.Open, again.BootID = lost, factory(lost, new(atomic.Bool)), "boot-2"
			r, err := shard.Open(again)
			if err != nil {
				t.Fatalf("seed %d, sync %d: %v", seed, i, err)
			}
			at := r.Position()
			if got := data(t, r); uint64(len(got)) != at.Offset {
				t.Fatalf("seed %d, sync %d: %d keys at %s", seed, i, len(got), at)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The same on a primary, which rolls to a new segment at each write: the generation goes on, and what was acknowledged
// is there.
func TestPowerLossBeforeTheSyncOfANewSegment(t *testing.T) {
	for seed := range uint64(40) {
		fs, armed, left := crashAtSync(seed)
		o := options(fs)
		o.Fsync, o.SegmentBytes = shard.FsyncAlways, 4<<10
		s := open(t, o)
		armed.Store(true)
		for i := range 4 {
			mustWrite(t, s, fmt.Sprint("k", i), strings.Repeat("v", 9000))
		}
		armed.Store(false)
		for i, lost := range left() {
			again := o
			again.FS, again.Open, again.BootID = lost, factory(lost, new(atomic.Bool)), "boot-2"
			r, err := shard.Open(again)
			if err != nil {
				t.Fatalf("seed %d, sync %d: %v", seed, i, err)
			}
			if at := r.Position(); uint64(len(data(t, r))) != at.Offset || !r.Lineage().Equal(s.Lineage()) {
				t.Fatalf("seed %d, sync %d: %d keys at %s on %s", seed, i, len(data(t, r)), at, r.Lineage())
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

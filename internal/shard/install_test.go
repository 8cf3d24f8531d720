package shard_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// filledDir makes a checkpoint of source as it was at offset, which must be what it is at or 0.
func filledDir(t *testing.T, fs vfs.FS, dir string, source *shard.Shard, offset uint64) string {
	t.Helper()
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if offset == 0 {
		return dir
	}
	err := source.Use(func(m shard.StateMachine) error {
		mm := m.(*machine)
		f, err := fs.Create(fs.PathJoin(dir, "state"), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		_, err = f.Write(mm.encode())
		return errors.Join(err, f.Sync(), f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// A crash at any point of a switch leaves the old data or the new, with the position and lineage that belong to it.
func TestInstallIsAtomic(t *testing.T) {
	source := open(t, options(vfs.NewMem()))
	for i := range 7 {
		mustWrite(t, source, fmt.Sprint("new", i), "v")
	}
	sawOld, sawNew := false, false
	for stop := int32(0); ; stop++ {
		fs := vfs.NewCrashableMem()
		var crashed *vfs.MemFS
		var count atomic.Int32
		armed := false
		injected := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && count.Add(1) == stop+1 {
				crashed = fs.CrashClone(vfs.CrashCloneCfg{RNG: rng(uint64(stop))})
			}
			return nil
		}))
		o := options(injected)
		o.Open = factory(injected, new(atomic.Bool))
		o.KeepPrevious = "/kept/s"
		s := open(t, o)
		mustWrite(t, s, "old", "v")
		demote(t, s)
		o.Writable = false
		oldLineage := s.Lineage()
		staged := filledDir(t, fs, "/staged", source, 7)
		for _, dir := range []string{"/staged", "/"} {
			d, err := fs.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(d.Sync(), d.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Log().Sync(); err != nil {
			t.Fatal(err)
		}
		armed = true
		if err := s.Install(staged, source.Position(), source.Lineage()); err != nil {
			t.Fatal(err)
		}
		armed = false
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if crashed == nil {
			break // every operation had its turn
		}
		o.FS, o.Open = crashed, factory(crashed, new(atomic.Bool))
		again, err := shard.Open(o)
		if err != nil {
			t.Fatalf("crash before write operation %d: %v", stop, err)
		}
		got := data(t, again)
		switch {
		case again.Lineage().Equal(oldLineage) && len(got) == 1 && got["old"] == "v" && again.Position().Offset == 1:
			sawOld = true
		case again.Lineage().Equal(source.Lineage()) && len(got) == 7 && again.Position() == source.Position():
			sawNew = true
		default:
			t.Fatalf("crash before write operation %d: %v at %s on %s", stop, got, again.Position(), again.Lineage())
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !sawOld || !sawNew {
		t.Fatalf("the sweep saw the old data: %v, the new: %v; want both", sawOld, sawNew)
	}
}

// pitfalls 18, 19: a snapshot that does not load leaves the old data and the old position.
func TestInstallOfABadSnapshot(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, options(fs))
	mustWrite(t, s, "old", "v")
	at := s.Position()
	if err := fs.MkdirAll("/staged", 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create("/staged/state", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("garbage\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	l := wire.Lineage{{Generation: wire.Generation{9}, First: 0}}
	if err := s.Install("/staged", l.At(5), l); err == nil {
		t.Fatal("a snapshot that does not load was installed")
	}
	if s.Position() != at || data(t, s)["old"] != "v" {
		t.Fatalf("after a bad snapshot: %v at %s", data(t, s), s.Position())
	}
	mustWrite(t, s, "goes on", "v")
}

// Quiet is the present machine's, and one that was installed is asked for it: what is missing comes first.
func TestQuiet(t *testing.T) {
	quiet := func(s *shard.Shard) (n int32) {
		t.Helper()
		if err := s.Use(func(m shard.StateMachine) error { n = m.(*machine).quiet.Load(); return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	fs := vfs.NewMem()
	source := open(t, options(fs))
	mustWrite(t, source, "new", "v")
	release := source.Quiet()
	if n := quiet(source); n != 1 {
		t.Errorf("%d ask for quiet, want 1", n)
	}
	release()
	if n := quiet(source); n != 0 {
		t.Errorf("%d ask for quiet behind the release", n)
	}
	o := options(fs)
	o.Dir, o.Writable = "/other", false
	s := open(t, o)
	if err := s.Install(filledDir(t, fs, "/staged", source, 1), source.Position(), source.Lineage()); err != nil {
		t.Fatal(err)
	}
	if n := quiet(s); n != 1 {
		t.Errorf("%d ask the installed one for quiet, want 1", n)
	}
}

// keeper is a lock that tells whether it was taken.
type keeper struct{ taken, held int }

func (k *keeper) Lock()   { k.taken++; k.held++ }
func (k *keeper) Unlock() { k.held-- }

// TestInstallKeepsWhatThereWas: what is replaced is kept, behind the lock that belongs to it; nothing at all does not take the place of what is kept.
func TestInstallKeepsWhatThereWas(t *testing.T) {
	fs := vfs.NewMem()
	source := open(t, options(fs))
	mustWrite(t, source, "new", "v")
	var lock keeper
	o := options(fs)
	o.Dir, o.Writable, o.KeepPrevious, o.Keeping = "/other", false, "/kept/s", &lock
	if err := fs.MkdirAll("/kept/s", 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create("/kept/s/of-before", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	kept := func() string {
		names, err := fs.List("/kept/s")
		return fmt.Sprint(names, err)
	}
	s := open(t, o)
	install := func(staged string) {
		t.Helper()
		if err := s.Install(filledDir(t, fs, staged, source, 1), source.Position(), source.Lineage()); err != nil {
			t.Fatal(err)
		}
	}
	install("/staged")
	if got := kept(); got != "[of-before] <nil>" || lock.taken != 0 {
		t.Errorf("an empty shard was kept: %s, locked %d times", got, lock.taken)
	}
	install("/staged-again")
	if got := kept(); got != "[state] <nil>" || lock.taken != 1 || lock.held != 0 {
		t.Errorf("kept is %s, locked %d times, held %d", got, lock.taken, lock.held)
	}
	names, err := fs.List("/other")
	if err != nil {
		t.Fatal(err)
	}
	engines := 0
	for _, n := range names {
		if strings.HasPrefix(n, "engine-") {
			engines++
		}
	}
	if engines != 1 {
		t.Errorf("the shard's directory has %v", names)
	}
}

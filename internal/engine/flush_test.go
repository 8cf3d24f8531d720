package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A flush of much of what there is writes everything: level 0 is empty behind it, deletions are no records any more, what a view
// holds stays, and the next Open finds all of it. One of little does not, nor does one over little.
func TestWholeFlush(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{Tuning: Tuning{Logged: 100, WholeFlush: 1 << 20}, MemTableSize: 16 << 20}
	r := newRig(t, fs, o)
	const keys = 3000
	value := func(k, n int) string { return fmt.Sprintf("%d %01000d", k, n) }
	write := func(from, to, n int) {
		for k := from; k < to; k++ {
			r.set(fmt.Sprint("k", k), value(k, n))
			if k%500 == 0 {
				r.commit()
			}
		}
		r.commit()
		r.must(r.e.Flush())
	}
	l0 := func() int64 {
		m, err := r.e.Metrics()
		r.must(err)
		if counted := r.e.pressure.tables.Load(); counted != m.L0Files {
			t.Fatalf("%d tables are in level 0, counted are %d", m.L0Files, counted)
		}
		return m.L0Files
	}
	r.e.compactions.mu.running = 100 // none is allowed
	write(0, 500, 1)
	write(0, 500, 2) // over less than WholeFlush
	if l0() == 0 {
		t.Fatal("a flush over little wrote everything")
	}
	write(0, keys, 3) // over that little
	write(0, keys/10, 4)
	few := l0()
	if few < 2 {
		t.Fatalf("%d tables are in level 0, want those of 2 flushes at least", few)
	}
	v, err := r.e.NewView()
	r.must(err)
	defer v.Close()
	for k := range 20 {
		r.mutate(func(tx *Tx) { tx.Delete(fmt.Append(nil, "k", k)) })
	}
	r.b.DeleteRange(DataBounds(0, Slots/2))
	r.b.End()
	for k := keys / 10; k < keys; k++ { // in one batch with the delete-range, so that one flush has both
		r.set(fmt.Sprint("k", k), value(k, 5))
	}
	r.commit()
	r.must(r.e.Flush())
	if n := l0(); n != 0 {
		t.Fatalf("%d tables are in level 0 behind a flush of everything, %d before", n, few)
	}
	levels, err := r.e.db.SSTables(pebble.WithProperties())
	r.must(err)
	for level, tables := range levels {
		for _, table := range tables {
			if p := table.Properties; level != 6 || p.NumDeletions != 0 {
				t.Fatalf("a table in level %d with %d deletions of keys and ranges", level, p.NumDeletions)
			}
		}
	}
	check := func() {
		t.Helper()
		for k := range keys {
			name := fmt.Sprint("k", k)
			want := value(k, 5)
			if k < keys/10 {
				want = value(k, 4)
				if k < 20 || Slot([]byte(name)) < Slots/2 {
					want = "none"
				}
			}
			if got := r.get(name); got != want {
				t.Fatalf("%s is %.20q, want %.20q", name, got, want)
			}
		}
	}
	check()
	if rec, ok, err := v.Get([]byte("k7"), r.now); err != nil || !ok || string(rec.Value) != value(7, 4) {
		t.Fatalf("the view has %.20q, %v, %v", rec.Value, ok, err)
	}
	r.must(v.Close())
	r.must(r.e.Close())
	o.FS = fs
	r.open("shard/engine", o)
	check()
	l0()
	if pos, err := r.e.Position(); err != nil || pos.Offset != r.next || pos.Generation != testGeneration {
		t.Fatalf("opened at %s, want %d (%v)", pos, r.next, err)
	}
}

// A flush of everything takes a compaction's tables from under it: that one ends, nothing is a fault, and the count of level 0 is
// right afterwards.
func TestWholeFlushMeetsCompactions(t *testing.T) {
	var faults []error
	r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{WholeFlush: 1}, OnError: func(err error) { faults = append(faults, err) }})
	r.e.Started()
	for round := range 60 {
		r.e.o.WholeFlush = 1 << 40
		if round%6 == 5 {
			r.e.o.WholeFlush = 1
		}
		keys := 300
		if round%6 == 5 {
			keys = 1000
		}
		for k := range keys {
			r.set(fmt.Sprint("k", (k*7+round)%1000), fmt.Sprint(round, "/", k))
		}
		r.commit()
		r.must(r.e.Flush())
	}
	eventually(t, "the count of level 0", func() bool {
		m, err := r.e.Metrics()
		r.must(err)
		return m.L0Files == r.e.pressure.tables.Load()
	})
	if len(faults) > 0 || r.e.Err() != nil {
		t.Fatalf("%v, %v", faults, r.e.Err())
	}
	for k := range 1000 {
		r.want(fmt.Sprint("k", (k*7+59)%1000), fmt.Sprint(59, "/", k))
	}
}

// A flush of everything that finds no room is followed by one of what must be written: that needs less.
func TestWholeFlushWithoutRoom(t *testing.T) {
	var refuse, refused atomic.Int64
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, stagedPrefix) && refuse.Load() > 0 && refuse.Add(-1) == 0 {
			refused.Add(1)
			return syscall.ENOSPC
		}
		return nil
	}))
	r := newRig(t, fs, Options{Tuning: Tuning{WholeFlush: 1}})
	r.e.compactions.mu.running = 100 // none is allowed
	write := func(n int) {
		for k := range 1000 {
			r.set(fmt.Sprint("k", k), fmt.Sprint(n, " of ", k))
		}
		r.commit()
	}
	for n := range 2 {
		write(n)
		r.must(r.e.Flush())
	}
	tables := func() int64 {
		m, err := r.e.Metrics()
		r.must(err)
		return m.L0Files
	}
	if n := tables(); n != 0 {
		t.Fatalf("%d tables are in level 0 behind a flush of everything", n)
	}
	refuse.Store(1)
	write(2)
	r.must(errors.Join(ignoreStalled(r.e.Flush()), ignoreStalled(r.e.Flush())))
	eventually(t, "the second try", func() bool { return r.e.Err() == nil && tables() > 0 })
	if refused.Load() != 1 {
		t.Fatalf("%d writes were refused", refused.Load())
	}
	r.want("k7", "2 of 7")
	write(3)
	r.must(r.e.Flush())
	if n := tables(); n != 0 {
		t.Fatalf("%d tables are in level 0: the flush behind the one that succeeded was not of everything", n)
	}
	r.want("k7", "3 of 7")
}

func ignoreStalled(err error) error {
	if errors.Is(err, ErrStalled) {
		return nil
	}
	return err
}

// TestProgress: a flush has done nothing before it writes, and all once it has ended.
func TestProgress(t *testing.T) {
	var r *rig
	var seen []float64
	r = newRig(t, vfs.NewMem(), Options{BeforeFlush: func() error {
		seen = append(seen, r.e.Progress())
		return nil
	}})
	for n := range 2 {
		for i := range 2000 {
			r.set(fmt.Sprint("key", n, ":", i), strings.Repeat("v", 100))
		}
		r.commit()
		r.must(r.e.Flush())
		if p := r.e.Progress(); p < 0.8 || p > 1 { // it is not exact
			t.Errorf("progress is %g behind a flush", p)
		}
	}
	if !slices.Equal(seen, []float64{0, 0}) {
		t.Errorf("progress was %v before anything was written", seen)
	}
}

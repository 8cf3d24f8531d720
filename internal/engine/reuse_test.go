package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestReuse: keys are written over and over while readers look: what a reader got stays as it is until its End, however
// often the key is overwritten meanwhile, and without one that is at it the memtable takes no further memory. A view begun in the
// middle keeps its content, too, and from there on no place is used again until the memtable is frozen.
//
// Values in the log have their places in the memtable, too.
func TestReuse(t *testing.T) {
	for _, logged := range []int{1, 1 << 30} {
		t.Run(fmt.Sprint("logged from ", logged), func(t *testing.T) { reuseRounds(t, logged) })
	}
}

func reuseRounds(t *testing.T, logged int) {
	r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{Logged: logged}, MemTableSize: 16 << 20})
	const keys, size = 2000, 100
	name := func(i int) string { return fmt.Sprint("key", i) }
	value := func(i, round int) []byte {
		return bytes.Repeat([]byte{byte(i), byte(i >> 8), byte(round), byte(round >> 8)}, size/4)
	}
	write := func(round int) {
		r.begin()
		for i := range keys {
			r.set(name(i), string(value(i, round)))
			if i%100 == 0 {
				r.commit()
				r.begin()
			}
		}
		r.commit()
	}
	write(0)
	full := r.e.layers.Load().bytes() * 3 / 2 // overwritten records wait until the next group but one

	var stop atomic.Bool
	var reads atomic.Int64
	var wg sync.WaitGroup
	for g := range 3 {
		// A reader, started here, ends when stop is set; the test waits for it.
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for !stop.Load() {
				var rd Reader
				if err := rd.Begin(r.e, r.now); err != nil {
					t.Error(err)
					return
				}
				for range 1 + rng.IntN(20) {
					i := rng.IntN(keys)
					rec, ok := rd.Get([]byte(name(i)))
					if !ok || len(rec.Value) != size {
						t.Errorf("key %d: %d bytes, %v", i, len(rec.Value), ok)
						break
					}
					round := int(rec.Value[2]) | int(rec.Value[3])<<8
					for range 3 { // it is looked at for a while
						if !bytes.Equal(rec.Value, value(i, round)) {
							t.Errorf("key %d is torn: %x", i, rec.Value)
							break
						}
					}
					reads.Add(1)
				}
				rd.End()
			}
		})
	}
	round := 0
	for round < 60 || reads.Load() < 5000 && !t.Failed() {
		round++
		write(round)
	}
	stop.Store(true)
	wg.Wait()
	full = max(full, r.e.layers.Load().bytes())
	for range 20 {
		round++
		write(round)
	}
	if n := r.e.layers.Load().bytes(); n > full {
		t.Errorf("%d bytes after %d rounds over the same keys, %d before the last 20", n, round, full)
	}

	// A reader that does not end keeps everything that was overwritten since it began.
	var rd Reader
	r.must(rd.Begin(r.e, r.now))
	rec, _ := rd.Get([]byte(name(7)))
	for range 5 {
		round++
		write(round)
	}
	if !bytes.Equal(rec.Value, value(7, round-5)) {
		t.Errorf("the value of a reader that has not ended changed to %x", rec.Value)
	}
	rd.End()

	view, err := r.e.NewView()
	r.must(err)
	for range 3 {
		write(round + 1)
	}
	n := 0
	r.must(eachWhole(view, r.now, func(k []byte, rec Record) bool {
		var i int
		if _, err := fmt.Sscanf(string(k), "key%d", &i); err != nil || !bytes.Equal(rec.Value, value(i, round)) {
			t.Errorf("%s in the view is %x (%v), want round %d", k, rec.Value, err, round)
			return false
		}
		n++
		return true
	}))
	r.must(view.Close())
	if n != keys {
		t.Errorf("%d keys in the view, want %d", n, keys)
	}
	r.must(r.e.Flush())
	for i := range keys {
		if got := r.get(name(i)); got != string(value(i, round+1)) {
			t.Fatalf("key %d after the flush: %x", i, got)
		}
	}
}

// TestReapingTracksNothing: a walk over the expiry index, which happens ten times a second, leaves the memtable loose.
func TestReapingTracksNothing(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{})
	r.begin()
	r.set("a", "1")
	r.commit()
	r.begin()
	r.mutate(func(tx *Tx) { tx.ReapExpired(10) })
	r.commit()
	if r.e.layers.Load().active.tracked {
		t.Error("reaping made the memtable tracked")
	}
	v, err := r.e.NewView()
	r.must(err)
	r.must(v.Close())
	if !r.e.layers.Load().active.tracked {
		t.Error("a view left the memtable loose")
	}
}

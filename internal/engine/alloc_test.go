//go:build !race

// The race detector allocates where the code does not.

package engine

import (
	"testing"
)

// What a Get and a Set allocate once their buffers have grown: nothing here. Pebble v2.1.7 itself allocates 16 bytes for
// each table that a lookup asks (a filter, in TryAddBlockPropertyFilterForHideObsoletePoints).
func TestAllocations(t *testing.T) {
	r, keys := filled(t, 2000, Options{})
	r.must(r.e.Flush())
	tx := r.e.Tx()
	value := make([]byte, 64)
	atMost := func(want float64, what string, f func()) {
		t.Helper()
		f()
		if n := testing.AllocsPerRun(500, f); n > want {
			t.Errorf("%s allocates %v times, want at most %v", what, n, want)
		}
	}
	nothing, inMemtable := []byte("nothing"), []byte("in the memtable")
	i := 0
	key := func() []byte { i++; return keys[i*7919%len(keys)] }
	tx.Begin(&r.b, r.group, r.now)
	atMost(1, "a get from a table", func() { tx.Get(key()) })
	atMost(1, "a get of nothing", func() { tx.Get(nothing) })
	i = 0
	for range 600 {
		tx.Set(key(), Record{Type: TypeString, Value: value, Deadline: 9_000_000})
	}
	i = 0
	atMost(0, "a get from the overlay", func() { tx.Get(key()) })
	tx.Rollback()
	mutate := func() {
		tx.Begin(&r.b, r.group, r.now)
		tx.Set(key(), Record{Type: TypeString, Value: value, Deadline: 9_000_000})
		tx.Delete(key())
		if i%3 == 0 {
			tx.Rollback()
			return
		}
		tx.End()
	}
	for range 2000 { // grow the buffers
		mutate()
	}
	r.begin()
	atMost(0, "a set and a delete", mutate)
	r.begin()
	r.set("in the memtable", "v")
	r.commit()
	tx.Begin(&r.b, r.group, r.now)
	atMost(0, "a get from the memtable", func() { tx.Get(inMemtable) })
	tx.Rollback()
}

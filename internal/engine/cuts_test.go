package engine

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// Wherever a flush is cut, the space around was cut before, into halves; and nothing between two cuts is larger than it may be.
func TestCuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var fs []frozen
		for id := range rapid.IntRange(1, 3).Draw(t, "memtables") {
			m := newMemtable(uint64(id), 0, nil, 0)
			tag := rapid.SampledFrom([]string{"k%d", "{a}%d", "{b}%d"}).Draw(t, "keys")
			for i := range rapid.IntRange(0, 1000).Draw(t, "count") {
				key := AppendDataKey(nil, fmt.Appendf(nil, tag, i))
				m.put(hashKey(key), key, make([]byte, 32), false)
			}
			fs = append(fs, frozen{memtable: m})
		}
		limit := rapid.Int64Range(500, 1<<17).Draw(t, "limit")
		held := rapid.SampledFrom([]int64{0, 1 << 19}).Draw(t, "held")
		at, most := cuts(fs, held, limit)

		var points []uint64
		var own int64
		for _, f := range fs {
			own += f.bytes
			for _, r := range f.newestData() {
				points = append(points, point(f.key(r)))
			}
		}
		slices.Sort(points)
		if held == 0 {
			limit = max(limit, own*3/2/tablesAFlush)
		}
		if most < limit {
			t.Fatalf("tables end behind %d bytes, before they are as large as %d", most, limit)
		}
		const end = Slots << 32
		if len(at) == 0 {
			at = []uint64{end}
		}
		if at[len(at)-1] != end {
			t.Fatalf("the last cut is at %x", at[len(at)-1])
		}
		for i, p := range at[:len(at)-1] {
			if p == 0 || p >= at[i+1] {
				t.Fatalf("%x lies before %x", at[i], at[i+1])
			}
			half := uint64(1) << bits.TrailingZeros64(p)
			for _, q := range []uint64{p - half, p + half} {
				if _, ok := slices.BinarySearch(at, q); q != 0 && !ok {
					t.Fatalf("%x is the middle of what ends at %x, where there is no cut", p, q)
				}
			}
		}
		from := uint64(0)
		for _, to := range at {
			first, _ := slices.BinarySearch(points, from)
			last, _ := slices.BinarySearch(points, to)
			if share := float64(last-first) / float64(len(points)) * float64(max(own, held)); to-from > 1 && share > float64(limit)+1 {
				t.Fatalf("%.0f bytes lie between %x and %x, more than %d", share, from, to, limit)
			}
			from = to
		}
	})
}

// Flushes of any sizes are cut at the same keys: what one of them has between two cuts can be compacted with what others have there.
func TestFlushesAreCutAtTheSameKeys(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{Staged: 16 << 10}, MemTableSize: 16 << 20})
	r.e.compactions.mu.running = 100 // none is allowed
	var flushes [][]pebble.SSTableInfo
	known := map[string]bool{}
	for n, keys := range []int{3000, 500, 8000, 1000} {
		for i := range keys {
			r.set(fmt.Sprint("key", n, ":", i), fmt.Sprintf("%032d", i))
			if i%500 == 0 {
				r.mutate(func(tx *Tx) {
					tx.Set(fmt.Append(nil, "short", n, ":", i), Record{Type: TypeString, Deadline: 1e12})
				})
				r.commit()
			}
		}
		r.commit()
		r.must(r.e.Flush())
		levels, err := r.e.db.SSTables()
		r.must(err)
		var own []pebble.SSTableInfo
		for _, s := range slices.Concat(levels...) {
			if num := s.FileNum.String(); !known[num] {
				known[num] = true
				own = append(own, s)
			}
		}
		slices.SortFunc(own, func(a, b pebble.SSTableInfo) int { return slices.Compare(a.Smallest.UserKey, b.Smallest.UserKey) })
		if len(own) < 4 {
			t.Fatalf("a flush of %d keys made %d tables", keys, len(own))
		}
		flushes = append(flushes, own)
	}
	place := func(key []byte) uint64 {
		switch key[0] {
		case prefixSystem:
			return 0
		case prefixData:
			return point(key)
		}
		return Slots << 32
	}
	for n, tables := range flushes {
		for i, s := range tables[1:] {
			from, to := place(tables[i].Largest.UserKey), place(s.Smallest.UserKey)
			if from == to {
				continue
			}
			cut := to &^ (1<<(bits.Len64(from^to)-1) - 1) // of all behind from, the one with the most zeros at its end
			for m, others := range flushes {
				for _, o := range others {
					if a, b := place(o.Smallest.UserKey), place(o.Largest.UserKey); a < cut && cut <= b && len(others) >= len(tables) {
						t.Errorf("flush %d is cut at %x, where a table of flush %d goes from %x to %x", n, cut, m, a, b)
					}
				}
			}
		}
	}
}

package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/understudy-kv/understudy/internal/polite"
)

// ordered is one space of a memtable, data or expiry: the refs of its records as they were put, and sorted runs of them.
//
// A run is sorted by key, the newer record of one key first. Runs cover refs from the front on, and a new one is merged
// with those before it that are not much larger, so that there are few, and a record is merged few times, however often
// somebody asks: an LSM of refs. They never change once made.
type ordered struct {
	refs []uint32 // guarded by Engine.write; a prefix of it that somebody was given never changes

	mu   sync.Mutex
	runs [][]uint32
	done int // refs that runs cover
}

// sorted returns runs that cover refs at least, which is a prefix of o.refs; they may have records behind it.
func (o *ordered) sorted(m *memtable, refs []uint32) [][]uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done >= len(refs) {
		return o.runs
	}
	run := sortRefs(m, slices.Clone(refs[o.done:]), nil)
	runs := slices.Clone(o.runs)
	for n := len(runs); n > 0 && len(runs[n-1]) <= 2*len(run); n-- {
		run = mergeRefs(m, runs[n-1], run)
		runs = runs[:n-1]
	}
	o.runs, o.done = append(runs, run), len(refs)
	return o.runs
}

// compareRefs orders records by key, the newer one of a key first.
func (m *memtable) compareRefs(a, b uint32) int {
	if c := bytes.Compare(m.key(a), m.key(b)); c != 0 {
		return c
	}
	return cmp.Compare(b, a)
}

// mergeRefs merges an older and a newer run.
func mergeRefs(m *memtable, old, new []uint32) []uint32 {
	out := make([]uint32, 0, len(old)+len(new))
	for len(old) > 0 && len(new) > 0 {
		if m.compareRefs(old[0], new[0]) < 0 {
			out, old = append(out, old[0]), old[1:]
		} else {
			out, new = append(out, new[0]), new[1:]
		}
	}
	return append(append(out, old...), new...)
}

// place is a ref with the first bytes of its key behind the slot, so that most comparisons need no look at the record.
type place struct {
	head uint64
	ref  uint32
}

// ascend sorts refs by their numbers, digit by digit.
func ascend(refs []uint32, w *polite.Worker) {
	const bits = 12
	if slices.IsSorted(refs) {
		return
	}
	most := slices.Max(refs)
	other := make([]uint32, len(refs))
	from, to := refs, other
	for shift := 0; most>>shift > 0; shift += bits {
		var next [1<<bits + 1]uint32
		for _, r := range from {
			next[r>>shift&(1<<bits-1)+1]++
		}
		for i := 1; i < len(next); i++ {
			next[i] += next[i-1]
		}
		for _, r := range from {
			d := r >> shift & (1<<bits - 1)
			to[next[d]] = r
			next[d]++
		}
		from, to = to, from
		w.Yield()
	}
	copy(refs, from)
}

// keysAPart is how many keys are sorted between two looks at the clock.
const keysAPart = 1024

// hashDigit is how many of the first bits of a hash are counted out.
const hashDigit = 11

// scatter puts places into the order of so many bits of their heads from bit shift on. Those that are equal stay as they are.
func scatter(from, to []place, shift, bits int, w *polite.Worker) {
	next := make([]uint32, 1<<bits+1)
	mask := uint64(1)<<bits - 1
	for i := range from {
		next[from[i].head>>shift&mask+1]++
	}
	for i := 1; i < len(next); i++ {
		next[i] += next[i-1]
	}
	for part := range slices.Chunk(from, keysAPart) {
		for _, p := range part {
			d := p.head >> shift & mask
			to[next[d]] = p
			next[d]++
		}
		w.Yield()
	}
}

// sortRefs sorts refs of one space in place and returns them. Data keys are first counted out by their slots and the beginnings
// of their hashes: that leaves very short runs. Their keys are looked at in the order in which they lie in memory.
// The worker, if there is one, yields between.
func sortRefs(m *memtable, refs []uint32, w *polite.Worker) []uint32 {
	ascend(refs, w)
	byHead := func(a, b place) int {
		if c := cmp.Compare(a.head, b.head); c != 0 {
			return c
		}
		return m.compareRefs(a.ref, b.ref)
	}
	places := make([]place, len(refs))
	for i, r := range refs {
		places[i] = place{binary.BigEndian.Uint64(m.key(r)[1:]), r}
		if i%keysAPart == 0 {
			w.Yield()
		}
	}
	if len(refs) < Slots/8 || m.key(refs[0])[0] != prefixData {
		slices.SortFunc(places, byHead)
	} else {
		other := make([]place, len(places))
		scatter(places, other, 48-hashDigit, hashDigit, w)
		scatter(other, places, 48, 16, w)
		begins := func(i int) uint64 { return places[i].head >> (48 - hashDigit) }
		for first, i := 0, 1; i <= len(places); i++ {
			if i == len(places) || begins(i) != begins(first) {
				slices.SortFunc(places[first:i], byHead)
				first = i
			}
			if i%keysAPart == 0 {
				w.Yield()
			}
		}
	}
	for i, p := range places {
		refs[i] = p.ref
	}
	return refs
}

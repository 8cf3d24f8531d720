package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sync"
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
	run := sortRefs(m, slices.Clone(refs[o.done:]))
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

// sortRefs sorts refs of one space in place and returns them. Data keys are first counted out by their slots: that leaves
// short runs of almost distinct hashes.
func sortRefs(m *memtable, refs []uint32) []uint32 {
	byHead := func(a, b place) int {
		if c := cmp.Compare(a.head, b.head); c != 0 {
			return c
		}
		return m.compareRefs(a.ref, b.ref)
	}
	places := make([]place, len(refs))
	if len(refs) < Slots/8 || m.key(refs[0])[0] != prefixData {
		for i, r := range refs {
			k := m.key(r)
			places[i] = place{binary.BigEndian.Uint64(k[1:]), r}
		}
		slices.SortFunc(places, byHead)
		for i, p := range places {
			refs[i] = p.ref
		}
		return refs
	}
	starts := make([]uint32, 1<<16+1)
	heads := make([]uint64, len(refs))
	for i, r := range refs {
		k := m.key(r)
		heads[i] = binary.BigEndian.Uint64(k[1:])
		starts[heads[i]>>48+1]++
	}
	for i := 1; i < len(starts); i++ {
		starts[i] += starts[i-1]
	}
	next := slices.Clone(starts)
	for i, r := range refs {
		slot := heads[i] >> 48
		places[next[slot]] = place{heads[i], r}
		next[slot]++
	}
	for slot := range len(starts) - 1 {
		if from, to := starts[slot], starts[slot+1]; to-from > 1 {
			slices.SortFunc(places[from:to], byHead)
		}
	}
	for i, p := range places {
		refs[i] = p.ref
	}
	return refs
}

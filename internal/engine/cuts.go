package engine

import "sort"

// tablesAFlush is how many tables a large flush is made of, if its keys are spread evenly. Level 0 holds few then, however large the
// memtables are.
const tablesAFlush = 8

// cuts says where the tables of a flush begin: in ascending order, and with the number of bytes behind which a table ends wherever it
// is, since its values are larger than those of others. The space of all data keys is halved, and each half again, as long as there is
// much in it, whatever else the flush has. So tables of all flushes begin and end at the same keys, or within one another, and a
// compaction takes out of level 0 whatever lies between two of them, from the newest flush to the oldest. Tables that end where they are full
// overlap others by halves: what lies below has to come along, which overlaps more, and so each byte of level 0 is written
// together with several of the level below.
//
// held is how many bytes a whole flush merges with the memtables', most of the same keys; else 0. limit is [Tuning.Staged].
func cuts(fs []frozen, held, limit int64) (at []uint64, most int64) {
	bytes, refs := int64(0), 0
	for _, f := range fs {
		bytes += f.bytes + f.left
		refs += len(f.newestData())
	}
	if held == 0 {
		limit = max(limit, bytes/tablesAFlush*3/2) // well above what each of them has
	}
	bytes = max(bytes, held)
	before := func(p uint64) (n int) {
		for _, f := range fs {
			data := f.newestData()
			n += sort.Search(len(data), func(i int) bool { return point(f.key(data[i])) >= p })
		}
		return n
	}
	var halve func(from, to uint64, first, last int)
	halve = func(from, to uint64, first, last int) {
		if to-from < 2 || float64(last-first)/float64(refs)*float64(bytes) <= float64(limit) {
			return
		}
		middle := from + (to-from)/2
		n := before(middle)
		halve(from, middle, first, n)
		at = append(at, middle)
		halve(middle, to, n, last)
	}
	if refs > 0 {
		halve(0, Slots<<32, 0, refs)
	}
	if len(at) > 0 {
		at = append(at, Slots<<32) // behind the data
	}
	return at, 4 * limit
}

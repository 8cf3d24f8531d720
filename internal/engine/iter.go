package engine

import (
	"bytes"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// iter walks the data and expiry spaces of a capture in key order: the memtables' runs and Pebble, merged. The newest
// record of a key counts; deleted and hidden keys are passed over. It has those methods of Pebble's iterator that the
// package uses, with their meaning.
type iter struct {
	base      *pebble.Iterator // nil: the memtables alone
	inBase    bool             // base stands on a key that was not passed yet
	runs      []run
	hides     []hide
	from, to  []byte
	now       *run // where the iterator stands; nil: on base, or nowhere
	valid     bool
	deletions bool        // deleted keys are not passed over; see deleted
	buf       []byte      // a value from the log
	log       io.ReaderAt // how to read it there; nil: as the memtable does
	unpin     func()      // nil if the capture outlives the iterator
}

// hide is a memtable's delete-range.
type hide struct {
	span
	depth int
}

// noEnd is behind every ref.
const noEnd = ^uint32(0)

// run is one run of one memtable, as far as the capture goes.
type run struct {
	m     *memtable
	depth int    // 0 is the active memtable
	end   uint32 // refs from here on are not part of the capture
	refs  []uint32
	at    int
	ahead int    // refs before it were loaded, see touchRefs
	key   []byte // at at; nil behind the last one
}

// newIter walks [from, to). It takes base over, which has these bounds.
func (c *capture) newIter(base *pebble.Iterator, from, to []byte) *iter {
	it := &iter{base: base, from: from, to: to}
	for depth, m := range c.layers.all {
		it.hide(m, depth)
		expiry, end := c.expiry, c.end // the active one's, which goes on growing
		if depth > 0 {
			expiry, end = m.expiry.refs, noEnd
		}
		switch inData := bytes.Compare(from, []byte{prefixIndex}) < 0; {
		case inData && depth > 0:
			it.add(m, depth, end, m.newestData())
		case inData && len(c.data) > 0:
			it.add(m, depth, end, m.data.sorted(m, c.data)...)
		}
		if len(expiry) > 0 && bytes.Compare(to, []byte{prefixIndex}) > 0 {
			it.add(m, depth, end, m.expiry.sorted(m, expiry)...)
		}
	}
	return it
}

func (it *iter) hide(m *memtable, depth int) {
	for _, s := range m.hides {
		it.hides = append(it.hides, hide{s, depth})
	}
}

func (it *iter) add(m *memtable, depth int, end uint32, runs ...[]uint32) {
	for _, r := range runs {
		it.runs = append(it.runs, run{m: m, depth: depth, end: end, refs: r})
	}
}

// settle takes the key at at, or behind it, that is part of the capture and before to.
func (r *run) settle(to []byte) {
	for r.at < len(r.refs) && r.refs[r.at] >= r.end {
		r.at++
	}
	r.key = nil
	if r.at < len(r.refs) {
		if r.at == r.ahead { // walking, not seeking
			r.ahead = min(r.at+touchRun, len(r.refs))
			touched.Store(r.m.touchRefs(r.refs[r.at:r.ahead]))
		}
		if k := r.m.key(r.refs[r.at]); bytes.Compare(k, to) < 0 {
			r.key = k
		}
	}
}

func (r *run) seek(key, to []byte) {
	r.at, _ = slices.BinarySearchFunc(r.refs, key, func(ref uint32, key []byte) int {
		if bytes.Compare(r.m.key(ref), key) < 0 {
			return -1
		}
		return 1
	})
	r.ahead = r.at + 1
	r.settle(to)
}

// First moves to the first key.
func (it *iter) First() bool { return it.SeekGE(it.from) }

// SeekGE moves to the first key at or behind key.
func (it *iter) SeekGE(key []byte) bool {
	if bytes.Compare(key, it.from) < 0 {
		key = it.from
	}
	for i := range it.runs {
		it.runs[i].seek(key, it.to)
	}
	// Pebble takes a key past the upper bound for the bound, which may lie before the lower one.
	it.inBase = it.base != nil && bytes.Compare(key, it.to) < 0 && it.base.SeekGE(key)
	return it.settle()
}

// Next moves to the next key.
func (it *iter) Next() bool {
	if !it.valid {
		return false
	}
	it.pass(it.Key())
	return it.settle()
}

// pass moves everything that stands on the key behind it. key may be one of the keys it moves away from.
func (it *iter) pass(key []byte) {
	own := it.now
	for i := range it.runs {
		r := &it.runs[i]
		if r == own {
			continue
		}
		for r.key != nil && bytes.Equal(r.key, key) {
			r.at++
			r.settle(it.to)
		}
	}
	if it.inBase && (own == nil || bytes.Equal(it.base.Key(), key)) {
		it.inBase = it.base.Next()
	}
	if own != nil {
		for own.key != nil && bytes.Equal(own.key, key) {
			own.at++
			own.settle(it.to)
		}
	}
}

// settle finds the first key that is there, at or behind where everything stands.
func (it *iter) settle() bool {
	for {
		// The smallest key; of equal ones the newest memtable's, and in that the newest record.
		var best *run
		for i := range it.runs {
			r := &it.runs[i]
			if r.key == nil {
				continue
			}
			if best == nil {
				best = r
				continue
			}
			c := bytes.Compare(r.key, best.key)
			if c < 0 || c == 0 && (r.depth < best.depth || r.depth == best.depth && r.refs[r.at] > best.refs[best.at]) {
				best = r
			}
		}
		depth := noDepth
		if best != nil {
			depth = best.depth
		}
		if it.inBase && (best == nil || bytes.Compare(it.base.Key(), best.key) < 0) {
			best, depth = nil, noDepth
		} else if best == nil {
			it.valid, it.now = false, nil
			return false
		}
		it.now, it.valid = best, true
		if s := it.hidden(it.Key(), depth); s != nil {
			it.skip(*s, depth)
			continue
		}
		if !it.deletions && it.deleted() {
			it.pass(best.key)
			continue
		}
		return true
	}
}

// noDepth is Pebble's depth.
const noDepth = int(^uint(0) >> 1)

// deleted reports whether the iterator stands on a deletion.
func (it *iter) deleted() bool {
	if it.now == nil {
		return false
	}
	return it.now.m.deleted(it.now.refs[it.now.at])
}

// hidden is the delete-range of a newer memtable that hides a key of this depth, or nil.
func (it *iter) hidden(key []byte, depth int) *span {
	for i := range it.hides {
		if h := &it.hides[i]; h.depth < depth && h.has(key) {
			return &h.span
		}
	}
	return nil
}

// skip moves everything of this depth and deeper, which the range hides, behind it.
func (it *iter) skip(s span, depth int) {
	for i := range it.runs {
		if r := &it.runs[i]; r.depth >= depth && r.key != nil && s.has(r.key) {
			r.seek(s.to, it.to)
		}
	}
	if it.inBase && s.has(it.base.Key()) {
		it.inBase = bytes.Compare(s.to, it.to) < 0 && it.base.SeekGE(s.to)
	}
}

// Valid reports whether the iterator stands on a key.
func (it *iter) Valid() bool { return it.valid }

// Key is the key it stands on, valid until the iterator moves.
func (it *iter) Key() []byte {
	if it.now != nil {
		return it.now.key
	}
	return it.base.Key()
}

// ValueAndErr is the value of the key it stands on, valid until the iterator moves.
func (it *iter) ValueAndErr() ([]byte, error) {
	if it.now == nil {
		return it.base.ValueAndErr()
	}
	m, log := it.now.m, it.log
	if log == nil {
		log = m.log
	}
	return m.valueBy(log, it.now.refs[it.now.at], &it.buf)
}

// headAndErr is the beginning of that value, a record's head at least: it is there where the value would have to be read.
func (it *iter) headAndErr() ([]byte, error) {
	if it.now != nil {
		return it.now.m.head(it.now.refs[it.now.at]), nil
	}
	return it.base.ValueAndErr()
}

// lastKey is the last key within the bounds, deleted or hidden or not; nil if there is none. The iterator stands nowhere
// afterwards.
func (it *iter) lastKey() (last []byte) {
	it.valid, it.now, it.inBase = false, nil, false
	if it.base != nil && it.base.Last() {
		last = append(last, it.base.Key()...)
	}
	for i := range it.runs {
		r := &it.runs[i]
		r.seek(it.to, it.to)
		for n := r.at - 1; n >= 0; n-- {
			if k := r.m.key(r.refs[n]); r.refs[n] < r.end {
				if bytes.Compare(k, last) > 0 && bytes.Compare(k, it.from) >= 0 {
					last = append(last[:0], k...)
				}
				break
			}
		}
		r.key = nil
	}
	return last
}

// Error is why a walk ended early.
func (it *iter) Error() error {
	if it.base == nil {
		return nil
	}
	return it.base.Error()
}

// Close gives the iterator back.
func (it *iter) Close() error {
	if it.unpin != nil {
		it.unpin()
		it.unpin = nil
	}
	if it.base == nil {
		return nil
	}
	return it.base.Close()
}

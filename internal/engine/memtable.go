package engine

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/understudy-kv/understudy/internal/hugepage"
	"github.com/understudy-kv/understudy/internal/polite"
)

// memtable holds the newest of what was applied: each operation copied once, into chunks, and a hash index over the keys.
// A put costs a copy and one place in the index, where a skiplist walks through some twenty places in memory. Order is made
// when somebody asks for it (ordered.go).
//
// A record is, at a multiple of 8 bytes:
//
//	keylen:4 size:4 key value
//
// in the machine's order of bytes, since it never leaves the process. size is the value's length, with the highest bit set
// for a deletion, and the one below it for a value that lies in the log (logged.go): then addr:8 sum:4 and its first bytes
// stand in its place. A ref names a record: the chunk's number and, in units of 8 bytes, the place in it; 0 is none.
//
// A memtable begins loose: the place of a data key's record that was overwritten is used again, by the next record of the
// same size, once nobody can be reading it any more. So keys that are written over and over take no further memory, and
// the memtable lives until it has enough of different keys, or until the log wants it flushed. A walk needs order, and
// records that stay: the first one makes the memtable tracked, for the rest of its life. From there on refs grow in the
// order in which records are put, so that whoever remembers where they ended sees the memtable of that moment, by passing
// over what came later.
//
// Invariants:
//
//  1. A record is written before its ref is stored in the index or handed to anyone, and then nothing of it changes while
//     anybody may look at it: in a loose memtable, while a get is under way that began before the record was overwritten;
//     in a tracked one, ever.
//  2. The index has the newest record of each data key, at or behind the place that its hash says, with no empty place
//     between (open addressing, linear probing). The expiry index's keys are not in it: nobody looks a single one up.
//  3. id, first and hides never change. Of a frozen memtable nothing does.
//
// One goroutine at a time puts, with Engine.write held; get may be called beside it, from any goroutine that is between
// Reader.Begin and End, or has the shard's turn.
type memtable struct {
	id    uint64 // grows from one memtable to the next
	first uint64 // offset behind which everything in it was applied
	hides []span // delete-ranges at its beginning: they hide what is older, and nothing of its own

	index  atomic.Pointer[[]uint64] // hash:32 ref:32; 0 is empty. A power of two of them, at most three quarters of them used
	chunks atomic.Pointer[[][]byte]
	used   int   // of the last chunk, in bytes
	keys   int   // in the index
	bytes  int64 // of records, with their places in the index and their refs

	log  io.ReaderAt // has the logged values; set before the first of them is put, and then never changed
	left int64       // bytes of logged values that were not overwritten
	over int64       // of those that were

	tracked bool
	reuse   reuse  // while it is loose
	spare   *spare // or nil

	data, expiry ordered

	order    sync.Once
	newest   []uint32 // see newestData
	arranged bool     // the flusher's
}

// span is the range [from, to) of engine keys.
type span struct{ from, to []byte }

func (s span) has(key []byte) bool {
	return bytes.Compare(s.from, key) <= 0 && bytes.Compare(key, s.to) < 0
}

const (
	recordHead = 8
	deletedBit = 1 << 31
	loggedBit  = 1 << 30
	recordCost = 24 // beside the record itself: its place in an index that is a third empty at best, and its ref
	refUnit    = 8
	chunkBits  = 17 // of a ref that say where in the chunk: 1 MiB in units of 8 bytes
	maxChunk   = refUnit << chunkBits
	minChunk   = 64 << 10
	hugeFrom   = 8 // chunks, some MiB, from which on it is worth what else is on the same large page
	minIndex   = 1 << 10
)

// seed makes the index's hashes unpredictable, so that no client can make keys which share a place in it.
var seed = maphash.MakeSeed()

func hashKey(key []byte) uint32 { return uint32(maphash.Bytes(seed, key)) }

// newMemtable makes one for what is applied from offset first on, with room for about keys keys in its index.
func newMemtable(id, first uint64, hides []span, keys int) *memtable {
	n := minIndex
	for 3*n < 4*keys {
		n *= 2
	}
	m := &memtable{id: id, first: first, hides: hides}
	index := make([]uint64, n)
	hugepage.Advise(index)
	m.index.Store(&index)
	// The first chunk begins behind ref 0, which stands for none.
	m.chunks.Store(&[][]byte{make([]byte, minChunk)})
	m.used = refUnit
	return m
}

// newMemtable is one of the engine's.
func (e *Engine) newMemtable(id, first uint64, hides []span, keys int) *memtable {
	m := newMemtable(id, first, hides, keys)
	m.spare = &e.spare
	return m
}

// end is the ref that no record has reached yet.
func (m *memtable) end() uint32 {
	return uint32(len(*m.chunks.Load())-1)<<chunkBits + uint32(min((m.used+refUnit-1)/refUnit, 1<<chunkBits))
}

// empty reports whether it has no record and hides nothing.
func (m *memtable) empty() bool {
	return m.bare() && len(m.hides) == 0
}

// bare reports whether it has no record.
func (m *memtable) bare() bool { return m.keys == 0 && len(m.expiry.refs) == 0 }

// room returns the bytes for a record of n bytes, and its ref.
func (m *memtable) room(n int) ([]byte, uint32) {
	chunks := *m.chunks.Load()
	last := len(chunks) - 1
	if m.used+n > len(chunks[last]) {
		size := min(2*len(chunks[last]), maxChunk)
		if len(chunks[last]) > maxChunk {
			size = maxChunk
		}
		var chunk []byte
		if huge := last >= hugeFrom; m.spare != nil && max(size, n) == maxChunk {
			chunk = m.spare.take(huge)
		} else {
			chunk = makeChunk(max(size, n), huge)
		}
		more := append(chunks[:last+1:last+1], chunk)
		m.chunks.Store(&more)
		chunks, last, m.used = more, last+1, 0
	}
	at := m.used
	// A record that is larger than a chunk has one of its own, and nothing behind it that a ref would have to reach.
	m.used = min((at+n+refUnit-1)&^(refUnit-1), len(chunks[last]))
	if n > maxChunk {
		m.used = len(chunks[last])
	}
	m.bytes += int64(n) + recordCost
	return chunks[last][at : at+n : at+n], uint32(last)<<chunkBits + uint32(at/refUnit)
}

// put adds a record of the key, which is in the data or the expiry space. hash is hashKey(key); for an expiry key it does
// not matter.
func (m *memtable) put(hash uint32, key, value []byte, deleted bool) {
	size := uint32(len(value))
	if deleted {
		size |= deletedBit
	}
	m.add(hash, key, value, size)
}

// add is put, with what stands in the record as the value.
func (m *memtable) add(hash uint32, key, value []byte, size uint32) {
	n := recordHead + len(key) + len(value)
	if key[0] != prefixData {
		b, ref := m.room(n)
		writeRecord(b, key, value, size)
		m.expiry.refs = append(m.expiry.refs, ref)
		return
	}
	b, ref := m.reuse.take(m, n)
	if ref == 0 {
		b, ref = m.room(n)
	}
	writeRecord(b, key, value, size)
	if m.tracked {
		m.data.refs = append(m.data.refs, ref)
	}
	index := *m.index.Load()
	mask := uint32(len(index) - 1)
	for p := hash & mask; ; p = (p + 1) & mask {
		s := index[p]
		if s == 0 {
			atomic.StoreUint64(&index[p], uint64(hash)<<32|uint64(ref))
			break
		}
		if uint32(s>>32) == hash && bytes.Equal(m.key(uint32(s)), key) {
			n := m.logged(uint32(s))
			m.left -= n
			m.over += n
			atomic.StoreUint64(&index[p], uint64(hash)<<32|uint64(ref))
			if !m.tracked {
				m.reuse.give(m, uint32(s))
			}
			return
		}
	}
	if m.keys++; 4*m.keys > 3*len(index) {
		m.grow()
	}
}

func writeRecord(b, key, value []byte, size uint32) {
	binary.NativeEndian.PutUint32(b, uint32(len(key)))
	binary.NativeEndian.PutUint32(b[4:], size)
	copy(b[recordHead:], key)
	copy(b[recordHead+len(key):], value)
}

// track makes it tracked: the refs of the records that it has now come first, in no order. Engine.write is held.
func (m *memtable) track() {
	if m.tracked {
		return
	}
	m.tracked, m.reuse = true, reuse{}
	m.data.refs = m.live(nil)
}

// live is the newest record of each data key, in no order.
func (m *memtable) live(w *polite.Worker) []uint32 {
	refs := make([]uint32, 0, m.keys)
	for part := range slices.Chunk(*m.index.Load(), 4*keysAPart) {
		for _, s := range part {
			if s != 0 {
				refs = append(refs, uint32(s))
			}
		}
		w.Yield()
	}
	return refs
}

// newestData is one run of the newest record of each data key. The memtable is frozen. It is made once, for whoever asks.
func (m *memtable) newestData() []uint32 {
	m.order.Do(func() { m.newest = sortRefs(m, m.live(nil), nil) })
	return m.newest
}

// arrange is newestData for a worker. Whoever asks meanwhile makes it, too, rather than wait for somebody who yields.
func (m *memtable) arrange(w *polite.Worker) {
	if m.arranged {
		return
	}
	newest := sortRefs(m, m.live(w), w)
	m.order.Do(func() { m.newest = newest })
	m.arranged = true
}

// grow doubles the index. Readers that have the old one see what there was.
func (m *memtable) grow() {
	old := *m.index.Load()
	index := make([]uint64, 2*len(old))
	hugepage.Advise(index)
	mask := uint32(len(index) - 1)
	for _, s := range old {
		if s == 0 {
			continue
		}
		p := uint32(s>>32) & mask
		for index[p] != 0 {
			p = (p + 1) & mask
		}
		index[p] = s
	}
	m.index.Store(&index)
}

// touch loads what puts of the hashes will look at, the index first and then the records that it names, so that the
// processor waits for many of them at once. It returns something of it all, which must not be optimized away.
func (m *memtable) touch(hashes []uint32) (sum uint64) {
	index := *m.index.Load()
	mask := uint32(len(index) - 1)
	for _, h := range hashes {
		sum += index[h&mask]
	}
	for _, h := range hashes {
		if s := index[h&mask]; uint32(s>>32) == h {
			sum += uint64(m.at(uint32(s))[0])
		}
	}
	return sum
}

// touchRefs is touch for records that are looked at one after the other.
func (m *memtable) touchRefs(refs []uint32) (sum uint64) {
	chunks := *m.chunks.Load()
	for _, ref := range refs {
		sum += uint64(chunks[ref>>chunkBits][ref&(1<<chunkBits-1)*refUnit])
	}
	return sum
}

// touched keeps the loads of touchRefs from being optimized away.
var touched atomic.Uint64

// get is the newest record of a data key, 0 if there is none.
func (m *memtable) get(hash uint32, key []byte) uint32 {
	index := *m.index.Load()
	mask := uint32(len(index) - 1)
	for p := hash & mask; ; p = (p + 1) & mask {
		s := atomic.LoadUint64(&index[p])
		if s == 0 {
			return 0
		}
		if uint32(s>>32) == hash && bytes.Equal(m.key(uint32(s)), key) {
			return uint32(s)
		}
	}
}

// at is the record's bytes, and whatever is behind them in its chunk.
func (m *memtable) at(ref uint32) []byte {
	chunks := *m.chunks.Load()
	return chunks[ref>>chunkBits][ref&(1<<chunkBits-1)*refUnit:]
}

func (m *memtable) key(ref uint32) []byte {
	b := m.at(ref)
	n := binary.NativeEndian.Uint32(b)
	return b[recordHead : recordHead+n : recordHead+n]
}

// inlineLen is how many bytes stand in a record as its value.
func inlineLen(size uint32) int {
	if size&loggedBit != 0 {
		return loggedLen + min(int(size&^loggedBit), maxRecordHead)
	}
	return int(size &^ deletedBit)
}

// head is the first bytes of the record's value, a record's head at least, nil for a deletion. It stays as it is for as long
// as anybody holds it.
func (m *memtable) head(ref uint32) []byte {
	b := m.at(ref)
	size := binary.NativeEndian.Uint32(b[4:])
	b = b[recordHead+binary.NativeEndian.Uint32(b):]
	n := inlineLen(size)
	if size&loggedBit != 0 {
		return b[loggedLen:n:n]
	}
	return b[:n:n]
}

// deleted reports whether the record is a deletion.
func (m *memtable) deleted(ref uint32) bool {
	return binary.NativeEndian.Uint32(m.at(ref)[4:])&deletedBit != 0
}

// value is the record's value, nil for a deletion. One that lies in the log is read into *buf, which grows; another stays as
// it is for as long as anybody holds it.
func (m *memtable) value(ref uint32, buf *[]byte) ([]byte, error) { return m.valueBy(m.log, ref, buf) }

// valueBy is value, with another way to read the log.
func (m *memtable) valueBy(log io.ReaderAt, ref uint32, buf *[]byte) ([]byte, error) {
	b := m.at(ref)
	size := binary.NativeEndian.Uint32(b[4:])
	b = b[recordHead+binary.NativeEndian.Uint32(b):]
	if size&loggedBit != 0 {
		return m.readLogged(log, b, int(size&^loggedBit), buf)
	}
	n := size &^ deletedBit
	return b[:n:n], nil
}

// hidesKey reports whether the key of an older memtable, or of Pebble, is hidden by this one's delete-ranges.
func (m *memtable) hidesKey(key []byte) bool {
	for _, s := range m.hides {
		if s.has(key) {
			return true
		}
	}
	return false
}

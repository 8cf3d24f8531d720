package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/understudy-kv/understudy/wire"
)

// A large value is not copied into the memtable. The log has it already: the record says where, and readers and the flusher
// read it there. So it is written to the disk once, and again only if it is still there when the memtable is flushed; and
// the memtable, which grows by keys, lasts for many more of them. What is not flushed yet is what recovery needs of the log,
// so the log keeps it in any case, but for views, which may need it for longer (Engine.NeedsLog).
//
// After WiscKey (Lu et al., FAST 2016), which has values stay in a log for good.

// defaultLogged is the size in bytes from which on a value is left in the log. A read of a smaller one would cost more by the
// system call than its copy did.
const defaultLogged = 512

// loggedLen is the size of what stands in a record for a value in the log, addr:8 sum:4, before the value's first bytes,
// maxRecordHead of them: who only wants to know whether a key is there, and of what type, need not read the value.
const loggedLen = 12

// errDamagedValue tells of a value that the log gives back otherwise than it took it.
var errDamagedValue = errors.New("a value in the log is damaged")

// putLogged puts a value that lies at the address in the log.
func (m *memtable) putLogged(hash uint32, key, value []byte, log io.ReaderAt, addr int64) {
	if m.log == nil {
		m.log = log
	}
	m.left += int64(len(value))
	var b [loggedLen + maxRecordHead]byte
	binary.NativeEndian.PutUint64(b[:], uint64(addr))
	binary.NativeEndian.PutUint32(b[8:], wire.Checksum(0, value))
	n := loggedLen + copy(b[loggedLen:], value)
	m.add(hash, key, b[:n], uint32(len(value))|loggedBit)
}

// logged is how many bytes of the record's value lie in the log.
func (m *memtable) logged(ref uint32) int64 {
	if size := binary.NativeEndian.Uint32(m.at(ref)[4:]); size&loggedBit != 0 {
		return int64(size &^ loggedBit)
	}
	return 0
}

// browser is a log that has a better way for who reads much of it, as the flusher does.
type browser interface {
	Browse() interface {
		io.ReaderAt
		io.Closer
	}
}

// browse is how to read the values of the memtables that lie in the log, which is one and the same for all of them, and ends
// with done; a nil reader is the log itself.
func browse(fs []frozen) (r io.ReaderAt, done func() error) {
	for _, f := range fs {
		if log, ok := f.log.(browser); ok {
			b := log.Browse()
			return b, b.Close
		}
	}
	return nil, func() error { return nil }
}

// readLogged reads the value of n bytes that b stands for.
func (m *memtable) readLogged(log io.ReaderAt, b []byte, n int, buf *[]byte) ([]byte, error) {
	addr, sum := int64(binary.NativeEndian.Uint64(b)), binary.NativeEndian.Uint32(b[8:])
	if cap(*buf) < n {
		*buf = make([]byte, max(n, 2*min(cap(*buf), keepValue)))
	}
	v := (*buf)[:n:n]
	if _, err := log.ReadAt(v, addr); err != nil {
		return nil, fmt.Errorf("a value of %d bytes in the log: %w", n, err)
	}
	if got := wire.Checksum(0, v); got != sum {
		return nil, fmt.Errorf("%w: %d bytes at address %d have the checksum %08x, want %08x; restart the node to have the log checked", errDamagedValue, n, addr, got, sum)
	}
	return v, nil
}

// keepValue is the size in bytes from which on a buffer for values is not kept.
const keepValue = 64 << 10

// shrink gives a buffer up that has grown large.
func shrink(buf *[]byte) {
	if cap(*buf) > keepValue {
		*buf = nil
	}
}

// NeedsLog is the offset from which on the log must be kept for who reads values there: what is not Pebble's yet, or a view
// holds. What is durable is another matter, see [Engine.Durable].
func (e *Engine) NeedsLog() (uint64, error) {
	if err := e.enter(); err != nil {
		return 0, err
	}
	defer e.exit()
	e.write.Lock() // whoever captures afterwards has none of what has left the layers
	defer e.write.Unlock()
	first := e.layers.Load().needs()
	e.use.Lock()
	defer e.use.Unlock()
	for f := range e.use.pins {
		first = min(first, f)
	}
	return first, nil
}

// LeftInLog is how many bytes of values are in the log and not in Pebble, and how many more there were that have been overwritten.
func (e *Engine) LeftInLog() (live, overwritten int64) {
	e.write.Lock()
	defer e.write.Unlock()
	for _, m := range e.layers.Load().all {
		live, overwritten = live+m.left, overwritten+m.over
	}
	return live, overwritten
}

// pin keeps the log from an offset on until unpin.
func (e *Engine) pin(first uint64) {
	e.use.Lock()
	defer e.use.Unlock()
	if e.use.pins == nil {
		e.use.pins = map[uint64]int{}
	}
	e.use.pins[first]++
}

func (e *Engine) unpin(first uint64) {
	e.use.Lock()
	defer e.use.Unlock()
	if e.use.pins[first]--; e.use.pins[first] == 0 {
		delete(e.use.pins, first)
	}
}

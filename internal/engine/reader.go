package engine

import (
	"fmt"
	"io"
)

// Reader reads records beside the owner goroutine: each Get sees what is applied at that moment. Any goroutine may use it,
// one at a time. The zero value is ready; outside of Begin and End it holds nothing, so it may be kept for the next engine.
// A Get allocates nothing once the buffers have grown.
//
//	if r.Begin(e, now) == nil { rec, ok := r.Get(key); …; r.End() }
type Reader struct {
	e      *Engine // between Begin and End
	now    int64
	err    error
	epoch  uint      // that it counts in
	key    []byte    // the engine key in the making
	pinned io.Closer // holds the bytes of the last Get
	buf    []byte    // has them, if they came from the log
}

// keepKey is the size from which on the buffer of a reader's key is not kept.
const keepKey = 4 << 10

// Begin begins some reads of e, at the given time in milliseconds since 1970. The engine's Close waits for End, so that
// must come soon. The error is [ErrClosed], and then there is nothing to end.
func (r *Reader) Begin(e *Engine, nowMillis int64) error {
	epoch, err := e.enterReader()
	if err != nil {
		return err
	}
	r.e, r.now, r.err, r.epoch = e, nowMillis, nil, epoch
	return nil
}

// End ends the reads and gives up the last record's bytes.
func (r *Reader) End() {
	r.release()
	if cap(r.key) > keepKey {
		r.key = nil
	}
	shrink(&r.buf)
	r.e.exitReader(r.epoch)
	r.e = nil
}

// Now is the time given to Begin.
func (r *Reader) Now() int64 { return r.now }

// Err is the first error since Begin: what Get returned since may be wrong.
func (r *Reader) Err() error { return r.err }

func (r *Reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *Reader) release() {
	if r.pinned != nil {
		if err := r.pinned.Close(); err != nil {
			r.fail(fmt.Errorf("engine: read: %w", err))
		}
		r.pinned = nil
	}
}

// Get returns the key's record. A record past its deadline is absent. Value is valid until the next Get or End.
func (r *Reader) Get(key []byte) (Record, bool) {
	r.release()
	r.key = appendDataKey(r.key[:0], Hash(key), key)
	v, pinned, found, err := r.e.get(r.key, &r.buf)
	if r.pinned = pinned; err != nil {
		r.fail(err)
	}
	if !found {
		return Record{}, false
	}
	rec, err := DecodeRecord(v)
	if err != nil {
		r.fail(err)
		return Record{}, false
	}
	if rec.Expired(r.now) {
		return Record{}, false
	}
	return rec, true
}

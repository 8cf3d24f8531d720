package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/wire"
)

// layers are the memtables over Pebble at one moment. They never change: what changes is which layers are the present
// ones (Engine.layers), with Engine.write held.
//
// Invariants:
//
//  1. A key's newest record is in the first memtable that has it, if none before that one hides it; Pebble comes last.
//  2. A memtable leaves the layers after Pebble has everything of it, so that it does not matter whether a reader of
//     Pebble sees that already: the layers' records lie over it and are the same.
type layers struct {
	active *memtable   // takes what is applied
	frozen []frozen    // on their way to Pebble, the newest first
	all    []*memtable // active and frozen, the newest first
}

// frozen is a memtable that takes nothing more, and the position behind it.
type frozen struct {
	*memtable
	at wire.Position
}

func newLayers(active *memtable, fs []frozen) *layers {
	l := &layers{active: active, frozen: fs, all: make([]*memtable, 0, 1+len(fs))}
	l.all = append(l.all, active)
	for _, f := range fs {
		l.all = append(l.all, f.memtable)
	}
	return l
}

// get looks a data key up. found is false if the layers know nothing of it, so that Pebble is to be asked; a deleted or
// hidden one is found, without a value. The value stays as it is for as long as anyone holds it, or lies in *buf.
func (l *layers) get(key []byte, buf *[]byte) (value []byte, deleted, found bool, err error) {
	hash := hashKey(key)
	for _, m := range l.all {
		if ref := m.get(hash, key); ref != 0 {
			value, err = m.value(ref, buf)
			return value, m.deleted(ref), true, err
		}
		if m.hidesKey(key) {
			return nil, true, true, nil
		}
	}
	return nil, false, false, nil
}

// get is what is applied now under a data key. The value is valid until pinned, if there is one, is closed, and until *buf is
// used again. Any goroutine, between Reader.Begin and End, or the owner's.
func (e *Engine) get(key []byte, buf *[]byte) (value []byte, pinned io.Closer, found bool, err error) {
	for {
		l := e.layers.Load()
		value, deleted, known, err := l.get(key, buf)
		if err != nil {
			if e.layers.Load() != l {
				continue // it was flushed meanwhile, and the log may have been trimmed behind it
			}
			return nil, nil, false, e.readFailed(err)
		}
		if known {
			return value, nil, !deleted, nil
		}
		break
	}
	value, pinned, err = e.db.Get(key)
	switch {
	case err == nil:
		return value, pinned, true, nil
	case errors.Is(err, pebble.ErrNotFound):
		return nil, nil, false, nil
	}
	return nil, nil, false, fmt.Errorf("engine: read: %w", err)
}

// readFailed is why a value in the log could not be read, for a caller. Damage is on record.
func (e *Engine) readFailed(err error) error {
	if errors.Is(err, errDamagedValue) {
		e.health.fail(err)
	}
	return fmt.Errorf("engine: read: %w", err)
}

// bytes is what all memtables hold. Only the owner, or who has Engine.write, may ask.
func (l *layers) bytes() (n int64) {
	for _, m := range l.all {
		n += m.bytes
	}
	return n
}

// rotate freezes the active memtable, which holds everything up to the present position, and begins one that hides the
// spans. It is called with write held.
func (e *Engine) rotateLocked(hides []span, at wire.Position) {
	l := e.layers.Load()
	e.nextID++
	next := e.newMemtable(e.nextID, at.Offset, hides, l.active.keys)
	fs := l.frozen
	if !l.active.empty() || !at.IsZero() && at != e.frozenAt {
		fs = append([]frozen{{l.active, at}}, l.frozen...)
		e.frozenAt = at
	}
	e.layers.Store(newLayers(next, fs))
	e.flusher.poke()
}

// capture is the content of the engine at one moment: the layers, how much of the active memtable, and an iterator of
// Pebble that is never moved.
type capture struct {
	layers       *layers
	end          uint32 // refs of the active memtable from here on came later
	data, expiry []uint32
	base         *pebble.Iterator
	at           wire.Position
}

// capture takes the present content within the bounds, if there are some. Its base must be closed, and what it needs of the
// log unpinned (needs).
//
// Holding write keeps Apply and the flusher from changing the layers between the two halves. Pebble may already have what
// the frozen memtables hold, or not: see layers.
func (e *Engine) capture(o *pebble.IterOptions) (capture, error) {
	e.write.Lock()
	defer e.write.Unlock()
	base, err := e.db.NewIter(o)
	if err != nil {
		return capture{}, err
	}
	l := e.layers.Load()
	if o == nil || bytes.Compare(o.LowerBound, []byte{prefixIndex}) < 0 {
		l.active.track()
	}
	at, _ := e.Position()
	e.pin(l.needs())
	return capture{
		layers: l, end: l.active.end(), data: l.active.data.refs, expiry: l.active.expiry.refs,
		base: base, at: at,
	}, nil
}

// needs is the offset from which on the layers need the log.
func (l *layers) needs() uint64 { return l.all[len(l.all)-1].first }

// newIter walks [from, to) of the present content. Close it.
func (e *Engine) newIter(from, to []byte) (*iter, error) {
	c, err := e.capture(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, err
	}
	it := c.newIter(c.base, from, to)
	it.unpin = func() { e.unpin(c.layers.needs()) }
	return it, nil
}

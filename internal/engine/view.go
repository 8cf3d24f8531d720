package engine

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/wire"
)

// View is the engine's content at one moment. It holds the memtables and files of that moment, so it should live for
// seconds, at most minutes. One goroutine at a time may use it, any one. Each call that walks ends with [ErrClosed] when
// the engine begins to close; the callbacks that it is given must return soon, for Close waits for them.
//
// Its base is an iterator that is never moved, and cloned for each use, and no Pebble snapshot: making and closing
// snapshots waits for DB.mu and for manifest writes, hence for the disk.
type View struct {
	e       *Engine
	content capture
}

// NewView takes a view of what is applied now. Close it.
func (e *Engine) NewView() (*View, error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.exit()
	content, err := e.capture(nil)
	if err != nil {
		return nil, fmt.Errorf("engine: view: %w", err)
	}
	v := &View{e: e, content: content}
	e.use.Lock()
	defer e.use.Unlock()
	e.use.views[v] = struct{}{}
	return v, nil
}

// Close gives the view up. It does nothing the second time, and after the engine was closed.
func (v *View) Close() error {
	e := v.e
	if e.enter() != nil {
		return nil // the engine's Close does it, or did
	}
	defer e.exit()
	e.use.Lock()
	_, open := e.use.views[v]
	delete(e.use.views, v)
	e.use.Unlock()
	if !open {
		return nil
	}
	e.unpin(v.content.layers.needs())
	return v.content.base.Close()
}

// walk opens an iterator over [from, to) for the length of f.
func (v *View) walk(from, to []byte, f func(w *walker) error) (err error) {
	if err := v.e.enter(); err != nil {
		return err
	}
	defer v.e.exit()
	base, err := v.content.base.Clone(pebble.CloneOptions{IterOptions: &pebble.IterOptions{LowerBound: from, UpperBound: to}})
	if err != nil {
		return fmt.Errorf("engine: view: %w", err)
	}
	it := v.content.newIter(base, from, to)
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	return f(&walker{it: it, closing: v.e.closing.Load})
}

// at calls f with the value of an engine key, if it is there.
func (v *View) at(key []byte, f func(value []byte) error) error {
	return v.walk(key, append(key[:len(key):len(key)], 0), func(w *walker) error {
		if !w.seek(key) {
			return w.err()
		}
		b, err := w.value()
		if err != nil {
			return err
		}
		return f(b)
	})
}

// Position is the position that the view's content has.
func (v *View) Position() (pos wire.Position, err error) { return v.content.at, nil }

// Get returns the key's record and whether it is there at now, in milliseconds since 1970. Value is a copy.
func (v *View) Get(key []byte, now int64) (r Record, ok bool, err error) {
	err = v.at(AppendDataKey(nil, key), func(b []byte) error {
		got, err := DecodeRecord(b)
		if err == nil && !got.Expired(now) {
			r, ok = got, true
			r.Value = append([]byte(nil), r.Value...)
		}
		return err
	})
	return r, ok, err
}

// Scan is one step of SCAN over the slots [fromSlot, toSlot): it calls f for keys from the cursor on, which may stand
// before those slots, and returns the cursor to go on with, 0 at the end. It looks at count keys, expired ones included,
// and then at the others that the last one shares its cursor with, so that no key is missed or repeated while the key
// stays. When f returns false the step ends likewise. f's arguments are valid during the call. A key that is past its
// deadline at now is passed over. The records come without their values, which are not read.
func (v *View) Scan(cursor uint64, fromSlot, toSlot, count int, now int64, f func(key []byte, r Record) bool) (next uint64, err error) {
	if _, ok := CursorSlot(cursor); !ok {
		return 0, nil
	}
	from, to := DataBounds(fromSlot, toSlot)
	err = v.walk(from, to, func(w *walker) error {
		next, err = w.scan(cursor, count, now, f)
		return err
	})
	return next, err
}

// Keys calls f for every key that is not expired at now, until it returns false. f's arguments are valid during the
// call. The records come without their values, which are not read; Raw has them.
func (v *View) Keys(now int64, f func(key []byte, r Record) bool) error {
	from, to := DataBounds(0, Slots)
	return v.walk(from, to, func(w *walker) error {
		return w.records(from, func(k Key, r Record) bool { return r.Expired(now) || f(k.User, r) })
	})
}

// Count counts the keys by going through all of them.
func (v *View) Count(now int64) (c KeyCount, err error) {
	from, to := DataBounds(0, Slots)
	err = v.walk(from, to, func(w *walker) error {
		c, err = w.count(from, now)
		return err
	})
	return c, err
}

// RandomKey is [Tx.RandomKey] on the view.
func (v *View) RandomKey(r uint64, now int64) (key []byte, ok bool, err error) {
	from, to := DataBounds(0, Slots)
	err = v.walk(from, to, func(w *walker) error {
		key, ok, err = w.random(r, now)
		return err
	})
	return key, ok, err
}

// Raw calls f for every engine key in [from, to), data and expiry index, and its value, until it returns false. [DecodeKey] and [DecodeRecord]
// take them apart. The arguments are valid during the call.
func (v *View) Raw(from, to []byte, f func(key, value []byte) bool) error {
	return v.walk(from, to, func(w *walker) error {
		for more := w.seek(from); more; more = w.next() {
			b, err := w.value()
			if err != nil {
				return err
			}
			if !f(w.key(), b) {
				return nil
			}
		}
		return w.err()
	})
}

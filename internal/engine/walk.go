package engine

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/understudy-kv/understudy/wire"
)

// walker walks data keys in order: an engine iterator's, with a group's overlay over them if there is one.
type walker struct {
	it     *iter    // nil: the overlay hides the engine
	o      *overlay // nil: the engine alone
	b      *wire.Builder
	sorted []int // the overlay's entries within the walk's bounds, by key
	at     int

	own, both bool // the current key is the overlay's; the engine has it too
	closing   func() bool
}

// overlayOn lays the group's writes over the walk, which is over [from, to).
func (w *walker) overlayOn(o *overlay, b *wire.Builder, from, to []byte) {
	w.o, w.b = o, b
	for i, n := range o.entries {
		if k := n.key(b); n.epoch == o.epoch && bytes.Compare(k, from) >= 0 && bytes.Compare(k, to) < 0 {
			w.sorted = append(w.sorted, i)
		}
	}
	slices.SortFunc(w.sorted, func(i, j int) int { return bytes.Compare(o.entries[i].key(b), o.entries[j].key(b)) })
}

func (w *walker) seek(key []byte) bool {
	if w.it != nil {
		w.it.SeekGE(key)
	}
	w.at, _ = slices.BinarySearchFunc(w.sorted, key, func(i int, key []byte) int {
		return bytes.Compare(w.o.entries[i].key(w.b), key)
	})
	return w.settle()
}

func (w *walker) next() bool {
	if w.own {
		w.at++
	}
	if !w.own || w.both {
		w.it.Next()
	}
	return w.settle()
}

// settle finds the next key that is there, at or behind where the walk stands.
func (w *walker) settle() bool {
	for !w.closing() {
		engine := w.it != nil && w.it.Valid()
		if w.at == len(w.sorted) {
			w.own = false
			return engine
		}
		n := w.o.entries[w.sorted[w.at]]
		order := 1
		if engine {
			order = bytes.Compare(w.it.Key(), n.key(w.b))
		}
		if engine && order < 0 {
			w.own = false
			return true
		}
		w.both = engine && order == 0
		if !n.deleted() {
			w.own = true
			return true
		}
		w.at++
		if w.both {
			w.it.Next()
		}
	}
	return false
}

func (w *walker) key() []byte {
	if w.own {
		return w.o.entries[w.sorted[w.at]].key(w.b)
	}
	return w.it.Key()
}

func (w *walker) value() ([]byte, error) {
	if w.own {
		return w.o.entries[w.sorted[w.at]].value(w.b), nil
	}
	return w.it.ValueAndErr()
}

// head is the beginning of the value, a record's head at least.
func (w *walker) head() ([]byte, error) {
	if w.own {
		return w.value()
	}
	return w.it.headAndErr()
}

// err is why a walk ended early.
func (w *walker) err() error {
	if w.closing() {
		return ErrClosed
	}
	if w.it != nil {
		return w.it.Error()
	}
	return nil
}

// record decodes where the walk stands, without the value; ok is false for a key that is not a record.
func (w *walker) record() (k Key, r Record, ok bool, err error) {
	if k, err = decodeKey(w.key()); err != nil || !k.IsRecord() {
		return k, r, false, err
	}
	v, err := w.head()
	if err != nil {
		return k, r, false, err
	}
	r, err = DecodeRecord(v)
	r.Value = nil
	return k, r, err == nil, err
}

// records calls f for every record from the engine key on, expired ones too, without its value, until it returns false.
func (w *walker) records(from []byte, f func(Key, Record) bool) error {
	for more := w.seek(from); more; more = w.next() {
		k, r, ok, err := w.record()
		if err != nil {
			return err
		}
		if ok && !f(k, r) {
			return nil
		}
	}
	return w.err()
}

// scan is SCAN: see [View.Scan].
func (w *walker) scan(cursor uint64, count int, now int64, f func([]byte, Record) bool) (next uint64, err error) {
	n, last := 0, uint64(0)
	from := appendPoint(nil, uint16(cursor>>32), uint32(cursor))
	err = w.records(from, func(k Key, r Record) bool {
		point := Cursor(k.Slot, k.Hash)
		if n >= max(count, 1) && point != last {
			next = point
			return false
		}
		n, last = n+1, point
		if !r.Expired(now) && !f(k.User, r) {
			n = max(n, count)
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	return next, nil
}

// KeyCount counts user keys.
type KeyCount struct {
	Keys      int64 // that a reader sees
	Deadlines int64 // of Keys, those that will expire
	Expired   int64 // past their deadline and not deleted yet: hidden from readers, not in Keys
}

func (w *walker) count(from []byte, now int64) (c KeyCount, err error) {
	err = w.records(from, func(_ Key, r Record) bool {
		switch {
		case r.Expired(now):
			c.Expired++
		case r.Deadline != 0:
			c.Deadlines++
			fallthrough
		default:
			c.Keys++
		}
		return true
	})
	return c, err
}

// random finds the first live key at or behind a point of [first, last] that r picks, going round at the end.
func (w *walker) random(r uint64, now int64) (key []byte, ok bool, err error) {
	if !w.seek([]byte{prefixData}) {
		return nil, false, w.err()
	}
	first, last := point(w.key()), w.lastPoint()
	start := first + r%(last-first+1)
	for _, from := range []uint64{start, first} {
		err = w.records(appendPoint(nil, uint16(from>>32), uint32(from)), func(k Key, rec Record) bool {
			if !rec.Expired(now) {
				key, ok = append([]byte(nil), k.User...), true
			}
			return !ok
		})
		if err != nil || ok {
			break
		}
	}
	return key, ok, err
}

// lastPoint is the cursor of the last key, deleted or not; the walk stands nowhere afterwards.
func (w *walker) lastPoint() (p uint64) {
	if w.it != nil {
		if k := w.it.lastKey(); k != nil {
			p = point(k)
		}
	}
	if n := len(w.sorted); n > 0 {
		p = max(p, point(w.o.entries[w.sorted[n-1]].key(w.b)))
	}
	return p
}

// point is the cursor of a data key.
func point(key []byte) uint64 {
	return Cursor(binary.BigEndian.Uint16(key[1:]), binary.BigEndian.Uint32(key[3:]))
}

// walk walks the slots [fromSlot, toSlot) as the mutation sees them.
func (tx *Tx) walk(fromSlot, toSlot int, f func(w *walker, from []byte) error) {
	tx.release()
	from, to := DataBounds(fromSlot, toSlot)
	w := &walker{closing: tx.e.closing.Load}
	w.overlayOn(&tx.overlay, tx.b, from, to)
	if !tx.overlay.cleared {
		it, err := tx.e.newIter(from, to)
		if err != nil {
			tx.fail(err)
			return
		}
		w.it = it
	}
	if err := f(w, from); err != nil {
		tx.fail(err)
	}
	if w.it != nil {
		if err := w.it.Close(); err != nil {
			tx.fail(err)
		}
	}
}

// Scan is [View.Scan] as the mutation sees the keys, for use inside of a transaction. It allocates. f must not use tx.
func (tx *Tx) Scan(cursor uint64, fromSlot, toSlot, count int, f func(key []byte, r Record) bool) (next uint64) {
	tx.walk(fromSlot, toSlot, func(w *walker, _ []byte) (err error) {
		next, err = w.scan(cursor, count, tx.now, f)
		return err
	})
	return next
}

// Keys calls f for every key as the mutation sees them, until it returns false. It allocates. f must not use tx. The records
// come without their values.
func (tx *Tx) Keys(f func(key []byte, r Record) bool) {
	tx.walk(0, Slots, func(w *walker, from []byte) error {
		return w.records(from, func(k Key, r Record) bool { return r.Expired(tx.now) || f(k.User, r) })
	})
}

// Count counts the keys as the mutation sees them, by going through all of them.
func (tx *Tx) Count() (c KeyCount) {
	tx.walk(0, Slots, func(w *walker, from []byte) (err error) {
		c, err = w.count(from, tx.now)
		return err
	})
	return c
}

// RandomKey returns a copy of some key, which r, a random number, picks. Keys behind gaps of the hash space are picked
// more often than others.
func (tx *Tx) RandomKey(r uint64) (key []byte, ok bool) {
	tx.walk(0, Slots, func(w *walker, _ []byte) (err error) {
		key, ok, err = w.random(r, tx.now)
		return err
	})
	return key, ok
}

package engine

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/wire"
)

// valuesRun is how many bytes of values are held at a time: one value may be larger.
const valuesRun = 256 << 10

// rewindBytes is how much of a rewind is in memory before it is made durable.
const rewindBytes = 4 << 20

// Values calls f for each engine key, in the order given, with what is applied now under it, and returns the position of
// that, which is one for all keys: zero if nothing was ever applied. It stops at f's first error and returns it. f may take
// its time; its arguments are valid during the call. It ends with [ErrClosed] when the engine begins to close.
func (e *Engine) Values(keys [][]byte, f func(key, value []byte, found bool) error) (wire.Position, error) {
	if err := e.Err(); err != nil {
		return wire.Position{}, err // a damaged store is not handed on
	}
	v, err := e.NewView()
	if err != nil {
		return wire.Position{}, err
	}
	pos, err := v.Position()
	for rest := keys; err == nil && len(rest) > 0; {
		var run []stored
		if run, err = v.entries(rest); err != nil {
			break
		}
		for i, r := range run {
			if err = f(rest[i], r.value, r.found); err != nil {
				break
			}
		}
		rest = rest[len(run):]
	}
	if cerr := v.Close(); err == nil {
		err = cerr
	}
	return pos, err
}

// stored is what there is under a key.
type stored struct {
	value []byte
	found bool
}

// entries looks up the first keys, at least one, until their values are enough for a run.
func (v *View) entries(keys [][]byte) (run []stored, err error) {
	err = v.walk(keyspaceFrom, keyspaceTo, func(w *walker) error {
		size := 0
		for _, k := range keys {
			if err := checkKey(k); err != nil {
				return err
			}
			var e stored
			if w.seek(k) && bytes.Equal(w.key(), k) {
				b, err := w.value()
				if err != nil {
					return err
				}
				e = stored{bytes.Clone(b), true}
			}
			if err := w.err(); err != nil {
				return err
			}
			run = append(run, e)
			if size += len(k) + len(e.value); size >= valuesRun {
				return nil
			}
		}
		return nil
	})
	return run, err
}

// Rewind puts the operations of checked values frames over what the engine holds and takes the position to at, which may
// lie before the present one. It returns when that is durable. The engine must have been opened just now, on the files of a
// checkpoint, and is good for Close only afterwards: what it holds in memory of its position is not what is on disk. After
// an error, or a crash before it has returned, the files are good for nothing.
func (e *Engine) Rewind(at wire.Position, values func(func(wire.Frame) error) error) error {
	if at.IsZero() {
		return fmt.Errorf("%w: a rewind without a position", ErrGap)
	}
	if err := e.enter(); err != nil {
		return err
	}
	defer e.exit()
	b := e.db.NewBatch()
	err := values(func(f wire.Frame) error {
		if err := f.CheckValues(); err != nil || f.Kind != wire.KindValues {
			return errors.Join(fmt.Errorf("engine: rewind: a %s frame, want values", f.Kind), err)
		}
		for ops := f.Ops(); ops.Next(); {
			op := ops.Op()
			err := checkKey(op.Key)
			switch {
			case err != nil:
			case op.Kind == wire.OpPut:
				err = b.Set(op.Key, op.Value, nil)
			default:
				err = b.Delete(op.Key, nil)
			}
			if err != nil {
				return err
			}
		}
		if b.Len() < rewindBytes {
			return nil
		}
		return e.rewindBatch(b)
	})
	if err == nil {
		err = b.Set(positionKey, wire.AppendPosition(nil, at), nil)
	}
	if err == nil {
		err = e.rewindBatch(b)
	}
	if cerr := b.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	// What is on disk decides: behind the fence, Pebble tells success whatever happened.
	got, err := readPosition(e.db, &pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if err != nil || got != at {
		return errors.Join(fmt.Errorf("engine: rewind to %s: %s is on disk", at, got), err)
	}
	return nil
}

// rewindBatch commits the batch, empties it, and waits until it is durable, so that little of a rewind is in memory.
func (e *Engine) rewindBatch(b *pebble.Batch) error {
	if err := e.Err(); err != nil {
		return err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("engine: rewind: %w", err)
	}
	b.Reset()
	return e.flushPebble()
}

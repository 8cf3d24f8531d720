package engine

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/wire"
)

// maxRetained bounds the memory that Apply keeps for its next batch, in bytes.
const maxRetained = 4 << 20

// Apply applies every operation of the batch's frames, and the position b.At, as one: readers, and a crash, see all of
// it or nothing. It does not wait for the disk. b's bytes are copied.
//
// The frames must be checked ones ([wire.Frame.Check]), contiguous, begin at b.First, which is the engine's position
// unless it has none yet, and end at b.At; else the error is [ErrGap]. [ErrKey], [ErrGap] and wire's errors are defects
// or damage of the batch; [ErrStalled] may be repeated; [ErrFenced] is final. After any error nothing was applied.
func (e *Engine) Apply(b wire.Batch) error {
	if e.closing.Load() {
		return ErrClosed
	}
	if err := e.admit(); err != nil {
		return err
	}
	at, _ := e.Position()
	if b.At.IsZero() {
		return fmt.Errorf("%w: a batch without a position", ErrGap)
	}
	if !at.IsZero() && b.First != at.Offset {
		return fmt.Errorf("%w: it begins at %d, the engine is at %s", ErrGap, b.First, at)
	}
	e.batch.Reset()
	next := b.First
	for rest := b.Frames; len(rest) > 0; {
		f, err := wire.ParseFramePayload(rest)
		if err != nil {
			return err
		}
		if f.Kind != wire.KindMutations || f.First != next {
			return fmt.Errorf("%w: a %s frame at %d, want mutations at %d", ErrGap, f.Kind, f.First, next)
		}
		if err := e.addOps(f.Ops()); err != nil {
			return fmt.Errorf("engine: frame at offset %d: %w", f.First, err)
		}
		next, rest = f.Next(), rest[len(f.Raw):]
	}
	if next != b.At.Offset {
		return fmt.Errorf("%w: its frames end at %d, its position is %s", ErrGap, next, b.At)
	}
	e.scan = wire.AppendPosition(e.scan[:0], b.At)
	if err := e.batch.Set(positionKey, e.scan, nil); err != nil {
		return fmt.Errorf("engine: apply: %w", err)
	}
	size := uint64(e.batch.Len()) + entryCost*uint64(e.batch.Count())
	if err := e.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("engine: apply: %w", err)
	}
	if e.gate.isFenced() {
		// Something fatal happened meanwhile: perhaps this commit, which Pebble then reports as a success (see Fatalf),
		// perhaps a flush that has nothing to do with it. What is visible decides.
		if pos, err := readPosition(e.db, nil); err != nil || pos != b.At {
			return errors.Join(ErrFenced, err)
		}
	}
	e.pressure.note(b.At.Offset, size, uint64(e.o.MemTableSize/4))
	e.at.Lock()
	e.at.Position = b.At
	e.at.Unlock()
	return nil
}

// addOps adds the operations to the batch in the making, after a look at their keys.
func (e *Engine) addOps(ops wire.Ops) error {
	for ops.Next() {
		op := ops.Op()
		var err error
		switch op.Kind {
		case wire.OpPut:
			if err = checkKey(op.Key); err == nil {
				if op.Key[0] == prefixIndex {
					e.noteIndex(op.Key)
				}
				err = e.batch.Set(op.Key, op.Value, nil)
			}
		case wire.OpDelete:
			if err = checkKey(op.Key); err == nil {
				err = e.batch.Delete(op.Key, nil)
			}
		case wire.OpDeleteRange:
			if bytes.Compare(op.Key, keyspaceFrom) < 0 || bytes.Compare(op.Value, keyspaceTo) > 0 || bytes.Compare(op.Key, op.Value) >= 0 {
				return fmt.Errorf("%w: delete-range [%x, %x)", ErrKey, clip(op.Key), clip(op.Value))
			}
			err = e.batch.DeleteRange(op.Key, op.Value, nil)
		}
		if err != nil {
			return err
		}
	}
	return ops.Err()
}

// checkKey refuses a key that is not in the data or index space. The whole form is the writer's duty; what matters here
// is that a frame can never reach the position.
func checkKey(k []byte) error {
	if len(k) < 9 || k[0] != prefixData && k[0] != prefixIndex {
		return fmt.Errorf("%w: %x", ErrKey, clip(k))
	}
	return nil
}

package engine

import (
	"bytes"
	"fmt"
	"io"

	"github.com/understudy-kv/understudy/wire"
)

// touchRun is for how many puts the processor loads ahead what they look at.
const touchRun = 128

// Apply applies every operation of the batch's frames, and the position b.At, as one: readers, and a crash, see all of
// it or nothing. It does not wait for the disk. b's bytes are copied.
//
// The frames must be checked ones ([wire.Frame.Check]), contiguous, begin at b.First, which is the engine's position
// unless it has none yet, and end at b.At; else the error is [ErrGap]. [ErrKey], [ErrGap] and wire's errors are defects
// or damage of the batch; [ErrStalled] may be repeated; [ErrFenced] is final. After any error nothing was applied.
func (e *Engine) Apply(b wire.Batch) error { return e.ApplyLogged(b, nil, 0) }

// ApplyLogged is [Engine.Apply] of a batch whose frames lie in log, one behind the other, from the address addr on: large
// values are left there. It is the same log in all calls. It must have them, as they are in b, until [Engine.NeedsLog] says
// otherwise; a nil log has nothing.
func (e *Engine) ApplyLogged(b wire.Batch, log io.ReaderAt, addr int64) error {
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
	hashes, err := e.check(b)
	if err != nil {
		return err
	}
	e.write.Lock()
	defer e.write.Unlock()
	e.reclaimLocked(e.layers.Load().active)
	e.putLocked(b, hashes, log, addr)
	e.at.Lock()
	e.at.Position = b.At
	e.at.Unlock()
	if e.layers.Load().active.bytes >= int64(rotateMemTables*e.o.MemTableSize) {
		e.rotateLocked(nil, b.At)
	}
	e.pressure.behind.Store(e.layers.Load().behind())
	return nil
}

// check walks the whole batch before anything of it is put, and returns the hashes of the keys of its puts and deletes.
func (e *Engine) check(b wire.Batch) ([]uint32, error) {
	e.hashes = e.hashes[:0]
	next := b.First
	for rest := b.Frames; len(rest) > 0; {
		f, err := wire.ParseFramePayload(rest)
		if err != nil {
			return nil, err
		}
		if f.Kind != wire.KindMutations || f.First != next {
			return nil, fmt.Errorf("%w: a %s frame at %d, want mutations at %d", ErrGap, f.Kind, f.First, next)
		}
		if err := e.checkOps(f.Ops()); err != nil {
			return nil, fmt.Errorf("engine: frame at offset %d: %w", f.First, err)
		}
		next, rest = f.Next(), rest[len(f.Raw):]
	}
	if next != b.At.Offset {
		return nil, fmt.Errorf("%w: its frames end at %d, its position is %s", ErrGap, next, b.At)
	}
	return e.hashes, nil
}

func (e *Engine) checkOps(ops wire.Ops) error {
	for ops.Next() {
		op := ops.Op()
		switch op.Kind {
		case wire.OpPut, wire.OpDelete:
			if err := checkKey(op.Key); err != nil {
				return err
			}
			e.hashes = append(e.hashes, hashKey(op.Key))
		case wire.OpDeleteRange:
			if bytes.Compare(op.Key, keyspaceFrom) < 0 || bytes.Compare(op.Value, keyspaceTo) > 0 || bytes.Compare(op.Key, op.Value) >= 0 {
				return fmt.Errorf("%w: delete-range [%x, %x)", ErrKey, clip(op.Key), clip(op.Value))
			}
		}
	}
	return ops.Err()
}

// putLocked puts what was checked.
//
// Who reads without the lock may see the batch's first puts before the last ones. What the flusher must never see is a part of
// it: so where a delete-range makes another memtable begin in the middle, the parts become layers at the end, together,
// and frozen, since the flusher takes all that is frozen.
func (e *Engine) putLocked(b wire.Batch, hashes []uint32, log io.ReaderAt, addr int64) {
	l := e.layers.Load()
	m, parts := l.active, []frozen(nil)
	ahead := 0 // puts that were touched and are not done
	for rest := b.Frames; len(rest) > 0; {
		f, _ := wire.ParseFramePayload(rest)
		rest = rest[len(f.Raw):]
		for ops := f.Ops(); ops.Next(); {
			if ahead == 0 {
				ahead = min(touchRun, len(hashes))
				e.touched += m.touch(hashes[:ahead])
			}
			op := ops.Op()
			switch op.Kind {
			case wire.OpPut:
				if op.Key[0] == prefixIndex {
					e.noteIndex(op.Key)
				}
				if log != nil && len(op.Value) >= e.o.Logged {
					m.putLogged(hashes[0], op.Key, op.Value, log, addr+int64(ops.ValueAt()))
				} else {
					m.put(hashes[0], op.Key, op.Value, false)
				}
				hashes, ahead = hashes[1:], ahead-1
			case wire.OpDelete:
				m.put(hashes[0], op.Key, nil, true)
				hashes, ahead = hashes[1:], ahead-1
			case wire.OpDeleteRange:
				s := span{bytes.Clone(op.Key), bytes.Clone(op.Value)}
				hides := []span{s}
				if m.bare() {
					hides = append(hides, m.hides...)
				} else {
					parts = append([]frozen{{m, b.At}}, parts...)
				}
				e.nextID++
				m = e.newMemtable(e.nextID, b.First, hides, 0)
			}
		}
		addr += int64(len(f.Raw))
	}
	if m == l.active {
		return
	}
	if len(parts) > 0 {
		parts = append([]frozen{{m, b.At}}, parts...)
		e.nextID++
		m = e.newMemtable(e.nextID, b.At.Offset, nil, 0)
		e.frozenAt = b.At
	}
	e.layers.Store(newLayers(m, append(parts, l.frozen...)))
	e.flusher.poke()
}

// checkKey refuses a key that is not in the data or index space. The whole form is the writer's duty; what matters here
// is that a frame can never reach the position.
func checkKey(k []byte) error {
	if len(k) < 9 || k[0] != prefixData && k[0] != prefixIndex {
		return fmt.Errorf("%w: %x", ErrKey, clip(k))
	}
	return nil
}

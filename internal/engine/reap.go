package engine

import (
	"encoding/binary"
	"fmt"
)

// ReapExpired deletes keys whose deadline has passed, oldest deadline first, and drops the entries of the expiry index
// that it has looked at. It looks at up to limit entries; n is how many keys it deleted, and more tells that it stopped
// at the limit. What this group wrote is respected, but deadlines that the group itself set wait for the next group.
func (tx *Tx) ReapExpired(limit int) (n int, more bool) {
	tx.release()
	if tx.overlay.cleared {
		return 0, false // the engine's index entries are deleted already
	}
	lower := tx.reaped
	if len(lower) == 0 {
		lower = binary.BigEndian.AppendUint64([]byte{prefixIndex}, uint64(tx.e.indexLow))
	}
	it, err := tx.e.newIter(lower, binary.BigEndian.AppendUint64([]byte{prefixIndex}, uint64(max(tx.now, 0))))
	if err != nil {
		tx.fail(fmt.Errorf("engine: expiry index: %w", err))
		return 0, false
	}
	seen := 0
	for it.First(); it.Valid() && tx.err == nil; it.Next() {
		if seen == limit || !tx.b.Room(2*MaxKey+256, 0) {
			more = true
			break
		}
		seen++
		k, err := decodeKey(it.Key())
		if err != nil {
			tx.fail(err)
			break
		}
		tx.key = appendDataKey(tx.key[:0], k.Hash, k.User)
		r, ok := tx.lookup(k.Hash)
		if tx.err != nil {
			break
		}
		// The entry is dropped in either case; the key goes only if this is the deadline it still has.
		if ok && r.Deadline == k.Deadline {
			tx.remove(k.Hash)
			n++
			if tx.Touched != nil {
				tx.Touched(k.User)
			}
		}
		tx.b.Delete(it.Key())
		tx.reaped = append(append(tx.reaped[:0], it.Key()...), 0)
	}
	tx.release()
	if err := it.Error(); err != nil {
		tx.fail(fmt.Errorf("engine: expiry index: %w", err))
	}
	if err := it.Close(); err != nil {
		tx.fail(fmt.Errorf("engine: expiry index: %w", err))
	}
	if seen == 0 && len(tx.reaped) == 0 && tx.err == nil {
		// Nothing is due: begin here the next time, behind the tombstones of what was reaped before.
		tx.e.indexLow = max(tx.e.indexLow, tx.now)
	}
	return n, more
}

// noteIndex is called for each index entry that is applied, so that ReapExpired begins at or before it.
func (e *Engine) noteIndex(key []byte) {
	if d := int64(binary.BigEndian.Uint64(key[1:])); d < e.indexLow {
		e.indexLow = d
	}
}

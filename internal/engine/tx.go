package engine

import (
	"fmt"
	"io"

	"github.com/understudy-kv/understudy/wire"
)

// Tx turns commands' reads and writes into mutations of a group's frame. Reads see what the group wrote so far and,
// below that, the engine; writes go to the frame only, and reach the engine when the caller has appended the frame to
// the log and applies it. There is one Tx an engine, for the owner goroutine:
//
//	tx.Begin(builder, group, now)
//	r, ok := tx.Get(key)
//	tx.Set(key, changed(r))
//	if tx.Err() != nil { tx.Rollback() } // and answer the error
//	tx.End()
//
// A Get or a Set allocates nothing once its buffers have grown.
type Tx struct {
	// Touched, if set, is called for each user key that is written, deleted or reaped, also by a mutation that is rolled
	// back later. TouchedAll is called by DeleteAll. The key is valid during the call.
	Touched    func(key []byte)
	TouchedAll func()

	e     *Engine
	b     *wire.Builder
	group uint64
	now   int64
	mark  wire.Mark
	err   error
	open  bool // between Begin and End or Rollback

	overlay  overlay
	reaped   []byte // index entries up to here were looked at in this group
	undoReap []byte // reaped when the mutation began

	key    []byte // the engine key in the making
	index  []byte
	head   []byte
	pinned io.Closer // holds the bytes of the last Get that came from the engine
	buf    []byte    // has them, if they came from the log
}

func newTx(e *Engine) *Tx { return &Tx{e: e} }

// Begin begins a mutation in b's frame at the given time, in milliseconds since 1970. Mutations of one group see each
// other's writes; a group that differs from the last mutation's means that the engine has what the last group wrote, or
// that none of it happened.
func (tx *Tx) Begin(b *wire.Builder, group uint64, nowMillis int64) {
	tx.release()
	if tx.b != b || tx.group != group {
		tx.overlay.reset()
		tx.reaped = tx.reaped[:0]
		tx.b, tx.group = b, group
	}
	tx.overlay.begin()
	tx.undoReap = append(tx.undoReap[:0], tx.reaped...)
	tx.mark, tx.now, tx.err, tx.open = b.Mark(), nowMillis, nil, true
}

// End ends the mutation and reports whether it wrote anything: one that did not takes no offset. A mutation with an
// error ([Tx.Err]) is rolled back.
func (tx *Tx) End() bool {
	tx.release()
	tx.open = false
	if tx.err != nil {
		tx.rollback()
		return false
	}
	if !tx.b.Since(tx.mark) {
		return false
	}
	tx.b.End()
	return true
}

// Rollback ends the mutation and forgets what it wrote. After End it does nothing.
func (tx *Tx) Rollback() {
	tx.release()
	if tx.open {
		tx.open = false
		tx.rollback()
	}
}

func (tx *Tx) rollback() {
	tx.b.Rollback(tx.mark)
	tx.overlay.rollback()
	tx.reaped = append(tx.reaped[:0], tx.undoReap...)
}

// Now is the time given to Begin, in milliseconds since 1970.
func (tx *Tx) Now() int64 { return tx.now }

// Err is the first error since Begin: a read that failed, or a write that does not fit in the frame any more
// ([wire.ErrTooLarge]). What Get returned since may be wrong and what Set was given since may be missing, so the
// mutation must not be answered as a success; End rolls it back.
func (tx *Tx) Err() error { return tx.err }

func (tx *Tx) fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

// release gives up the bytes of the last Get.
func (tx *Tx) release() {
	if tx.pinned != nil {
		if err := tx.pinned.Close(); err != nil {
			tx.fail(fmt.Errorf("engine: read: %w", err))
		}
		tx.pinned = nil
	}
	shrink(&tx.buf)
}

// Get returns the key's record as this mutation sees it. A record past its deadline is absent. Value is valid until the
// next Get, ReapExpired, Begin, End or Rollback; it may be passed to Set.
func (tx *Tx) Get(key []byte) (Record, bool) {
	hash := Hash(key)
	tx.key = appendDataKey(tx.key[:0], hash, key)
	r, ok := tx.lookup(hash)
	if !ok || r.Expired(tx.now) {
		return Record{}, false
	}
	return r, true
}

// lookup reads the record of tx.key, expired or not.
func (tx *Tx) lookup(hash uint32) (Record, bool) {
	tx.release()
	if i := tx.overlay.find(tx.b, hash, tx.key); i >= 0 {
		n := tx.overlay.entries[i]
		if n.epoch != tx.overlay.epoch || n.deleted() {
			return Record{}, false
		}
		return tx.decode(n.value(tx.b))
	}
	if tx.overlay.cleared {
		return Record{}, false
	}
	v, pinned, found, err := tx.e.get(tx.key, &tx.buf)
	if tx.pinned = pinned; err != nil {
		tx.fail(err)
	}
	if !found {
		return Record{}, false
	}
	return tx.decode(v)
}

func (tx *Tx) decode(v []byte) (Record, bool) {
	r, err := DecodeRecord(v)
	if err != nil {
		tx.fail(err)
		return Record{}, false
	}
	return r, true
}

// Set puts the key's record, whatever was there. r.Deadline is absolute and not negative.
func (tx *Tx) Set(key []byte, r Record) {
	if !tx.b.Room(2*len(key)+2*maxRecordHead, len(r.Value)+64) {
		tx.fail(fmt.Errorf("%w: a value of %d bytes behind %d bytes of the same frame", wire.ErrTooLarge, len(r.Value), tx.b.Len()))
		return
	}
	hash := Hash(key)
	tx.key = appendDataKey(tx.key[:0], hash, key)
	tx.head = appendRecordHead(tx.head[:0], r)
	i := tx.overlay.find(tx.b, hash, tx.key)
	indexed := r.Deadline == 0
	if i >= 0 && !indexed {
		// The same deadline again, as INCR on a key with one: this group has written the index entry.
		if n := tx.overlay.entries[i]; n.epoch == tx.overlay.epoch && !n.deleted() {
			old, err := DecodeRecord(n.value(tx.b))
			indexed = err == nil && old.Deadline == r.Deadline
		}
	}
	from, to := tx.b.PutParts(tx.key, tx.head, r.Value)
	keyAt := from - uvarintLen(to-from) - len(tx.key)
	tx.overlay.put(i, entry{hash: hash, keyAt: uint32(keyAt), keyLen: uint32(len(tx.key)), from: uint32(from), to: uint32(to)})
	if !indexed {
		tx.index = appendIndexKey(tx.index[:0], r.Deadline, hash, key)
		tx.b.Put(tx.index, nil)
	}
	if tx.Touched != nil {
		tx.Touched(key)
	}
}

// Delete deletes the key. It writes also when the key is not there: look first where that matters. The key's entry in
// the expiry index, if there is one, becomes stale and is dropped when it is due.
func (tx *Tx) Delete(key []byte) {
	if !tx.b.Room(len(key)+64, 0) {
		tx.fail(fmt.Errorf("%w: a delete behind %d bytes of the same frame", wire.ErrTooLarge, tx.b.Len()))
		return
	}
	hash := Hash(key)
	tx.key = appendDataKey(tx.key[:0], hash, key)
	tx.remove(hash)
	if tx.Touched != nil {
		tx.Touched(key)
	}
}

// remove deletes tx.key.
func (tx *Tx) remove(hash uint32) {
	i := tx.overlay.find(tx.b, hash, tx.key)
	tx.b.Delete(tx.key)
	keyAt := tx.b.Len() - len(tx.key)
	tx.overlay.put(i, entry{hash: hash, keyAt: uint32(keyAt), keyLen: uint32(len(tx.key))})
}

// DeleteAll deletes every key of the shard, as one operation.
func (tx *Tx) DeleteAll() {
	tx.b.DeleteRange(keyspaceFrom, keyspaceTo)
	tx.overlay.clear()
	if tx.TouchedAll != nil {
		tx.TouchedAll()
	}
}

func uvarintLen(n int) int {
	l := 1
	for ; n >= 0x80; n >>= 7 {
		l++
	}
	return l
}

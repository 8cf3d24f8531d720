package engine

import (
	"bytes"

	"github.com/understudy-kv/understudy/wire"
)

// overlay is what the mutations of one group have written and the engine does not have yet: a hash table from data keys
// to places in the group's frame. It holds no pointer and reuses its memory.
//
// Invariants:
//
//  1. entries are in the order in which their keys were first written; index holds each of them once, as position+1,
//     by linear probing from its hash. So removing the newest entries again, newest first, leaves the index as it was.
//  2. An entry counts only if its epoch is the present one. A DeleteAll begins a new epoch and sets cleared, which
//     hides the engine's own keys.
//  3. undo holds the former content of every entry that was there when the mutation began and was written since.
type overlay struct {
	index   []uint32
	entries []entry
	epoch   uint32
	cleared bool

	undo         []undone
	start        int // len(entries) when the mutation began
	startEpoch   uint32
	startCleared bool
}

// entry is one key: where the frame's payload has it and its record. from == to means that the key was deleted.
type entry struct {
	hash     uint32
	epoch    uint32
	keyAt    uint32
	keyLen   uint32
	from, to uint32
}

func (n entry) deleted() bool { return n.from == n.to }

type undone struct {
	at  int
	old entry
}

// overlayKeep is how many entries' memory is kept from one group to the next.
const overlayKeep = 1 << 16

// reset forgets everything: a new group begins.
func (o *overlay) reset() {
	switch {
	case len(o.entries) > overlayKeep:
		o.index, o.entries = nil, nil
	case len(o.entries)*8 < len(o.index):
		o.truncate(0)
	default:
		clear(o.index)
		o.entries = o.entries[:0]
	}
	o.epoch, o.cleared = 0, false
	o.begin()
}

// begin begins a mutation.
func (o *overlay) begin() {
	o.undo = o.undo[:0]
	o.start, o.startEpoch, o.startCleared = len(o.entries), o.epoch, o.cleared
}

// rollback forgets what was written since begin.
func (o *overlay) rollback() {
	for i := len(o.undo) - 1; i >= 0; i-- {
		o.entries[o.undo[i].at] = o.undo[i].old
	}
	o.truncate(o.start)
	o.epoch, o.cleared = o.startEpoch, o.startCleared
	o.begin()
}

// truncate removes the entries from n on, newest first.
func (o *overlay) truncate(n int) {
	for i := len(o.entries) - 1; i >= n; i-- {
		mask := uint32(len(o.index) - 1)
		p := o.entries[i].hash & mask
		for o.index[p] != uint32(i+1) {
			p = (p + 1) & mask
		}
		o.index[p] = 0
	}
	o.entries = o.entries[:n]
}

// clear hides all keys, the engine's too.
func (o *overlay) clear() {
	o.epoch++
	o.cleared = true
}

// find returns the key's entry, whatever its epoch, or -1.
func (o *overlay) find(b *wire.Builder, hash uint32, key []byte) int {
	if len(o.entries) == 0 {
		return -1
	}
	mask := uint32(len(o.index) - 1)
	for p := hash & mask; o.index[p] != 0; p = (p + 1) & mask {
		i := int(o.index[p] - 1)
		if n := o.entries[i]; n.hash == hash && bytes.Equal(n.key(b), key) {
			return i
		}
	}
	return -1
}

func (n entry) key(b *wire.Builder) []byte { return b.Bytes(int(n.keyAt), int(n.keyAt+n.keyLen)) }

func (n entry) value(b *wire.Builder) []byte { return b.Bytes(int(n.from), int(n.to)) }

// put writes the entry of a key; i is what find returned for it.
func (o *overlay) put(i int, n entry) {
	n.epoch = o.epoch
	if i >= 0 {
		if i < o.start {
			o.undo = append(o.undo, undone{i, o.entries[i]})
		}
		o.entries[i] = n
		return
	}
	if 2*(len(o.entries)+1) > len(o.index) {
		o.grow()
	}
	o.entries = append(o.entries, n)
	o.insert(len(o.entries) - 1)
}

func (o *overlay) insert(i int) {
	mask := uint32(len(o.index) - 1)
	p := o.entries[i].hash & mask
	for o.index[p] != 0 {
		p = (p + 1) & mask
	}
	o.index[p] = uint32(i + 1)
}

func (o *overlay) grow() {
	o.index = make([]uint32, max(64, 2*len(o.index)))
	for i := range o.entries {
		o.insert(i)
	}
}

package engine

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// stopMemTables is how many memtables' worth of data may wait to be flushed before Apply waits.
	stopMemTables = 4
	// stopTables is how many tables may lie in level 0, before compactions, until Apply waits.
	stopTables = 256
	// entryCost is what an entry costs in a memtable beside its bytes, about.
	entryCost = 64
)

// backpressure decides when Apply must wait for flushes and compactions. Pebble could do that itself, but the owner
// goroutine would wait inside Pebble, where nothing can call it back when flushes cannot go on; and Pebble's metrics
// wait for the manifest's lock, hence for the disk.
type backpressure struct {
	applied uint64       // bytes applied since Open
	flushed uint64       // of them, those known to be durable
	marks   []mark       // some of the positions since, oldest first
	tables  atomic.Int64 // in level 0; kept by events
}

// mark says how many bytes had been applied when the shard was at an offset.
type mark struct{ offset, applied uint64 }

// note is told of an applied batch. One mark for each step bytes is enough.
func (b *backpressure) note(offset, bytes, step uint64) {
	b.applied += bytes
	if n := len(b.marks); n == 0 || b.applied-b.marks[n-1].applied >= step {
		b.marks = append(b.marks, mark{offset, b.applied})
	}
}

// durable is told that everything before offset is durable.
func (b *backpressure) durable(offset uint64) {
	n := 0
	for n < len(b.marks) && b.marks[n].offset <= offset {
		b.flushed = b.marks[n].applied
		n++
	}
	b.marks = append(b.marks[:0], b.marks[n:]...)
}

// flush and compaction keep the count of level 0's tables.
func (b *backpressure) flush(i pebble.FlushInfo) {
	if i.Err == nil {
		b.tables.Add(int64(len(i.Output)))
	}
}

func (b *backpressure) compaction(i pebble.CompactionInfo) {
	if i.Err != nil {
		return
	}
	for _, in := range i.Input {
		if in.Level == 0 {
			b.tables.Add(-int64(len(in.Tables)))
		}
	}
	if i.Output.Level == 0 {
		b.tables.Add(int64(len(i.Output.Tables)))
	}
}

// admit waits until a batch may be applied, or says why it may not.
func (e *Engine) admit() error {
	for {
		changed, err := e.health.err()
		if err != nil {
			return err
		}
		limit := uint64(stopMemTables * e.o.MemTableSize)
		b := &e.pressure
		if b.applied-b.flushed >= limit {
			offset, err := e.Durable()
			if err != nil {
				return err
			}
			b.durable(offset)
		}
		if b.applied-b.flushed < limit && b.tables.Load() < stopTables {
			return nil
		}
		select {
		case <-changed:
		case <-e.gate.closing:
			return ErrClosed
		}
	}
}

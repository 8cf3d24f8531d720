package engine

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// rotateMemTables is how many times MemTableSize the active memtable holds when it is frozen.
	rotateMemTables = 4
	// stopMemTables is how many times MemTableSize all memtables may hold before Apply waits.
	stopMemTables = 6
	// stopTables is how many tables may lie in level 0, before compactions, until Apply waits.
	stopTables = 256
)

// backpressure decides when Apply must wait for flushes and compactions. Pebble could do the latter itself, but the owner
// goroutine would wait inside Pebble, where nothing can call it back when compactions cannot go on; and Pebble's metrics
// wait for the manifest's lock, hence for the disk.
type backpressure struct {
	tables atomic.Int64 // in level 0; kept by events
}

// flush, ingested and compaction keep the count of level 0's tables.
func (b *backpressure) flush(i pebble.FlushInfo) {
	if i.Err == nil {
		b.tables.Add(int64(len(i.Output)))
	}
}

func (b *backpressure) ingested(i pebble.TableIngestInfo) {
	for _, t := range i.Tables {
		if i.Err == nil && t.Level == 0 {
			b.tables.Add(1)
		}
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
		l := e.layers.Load()
		if l.bytes() < int64(stopMemTables*e.o.MemTableSize) && len(l.frozen) < maxFrozen && e.pressure.tables.Load() < stopTables {
			return nil
		}
		e.compactions.start() // the start itself waits for them
		select {
		case <-changed:
		case <-e.gate.closing:
			return ErrClosed
		}
	}
}

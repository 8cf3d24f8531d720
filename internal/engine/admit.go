package engine

import (
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// rotateMemTables is how many times MemTableSize the active memtable holds when it is frozen.
	rotateMemTables = 3
	// stopMemTables is how many times MemTableSize all memtables may hold before Apply waits.
	stopMemTables = 5
	// stopTables is how many tables may lie in level 0, before compactions, until Apply waits.
	stopTables = 256
	// urgentTables is from how many on background work keeps to no budget.
	urgentTables = stopTables / 4 * 3
)

// backpressure decides when Apply must wait for flushes and compactions. Pebble could do the latter itself, but the owner
// goroutine would wait inside Pebble, where nothing can call it back when compactions cannot go on; and Pebble's metrics
// wait for the manifest's lock, hence for the disk.
type backpressure struct {
	tables atomic.Int64 // in level 0; kept by events
	behind atomic.Bool  // what the layers said of it when they changed last

	mu      sync.Mutex
	numbers map[uint64]struct{} // of those tables
}

// urgent reports whether Apply will soon have to wait if all goes on like this.
func (b *backpressure) urgent() bool { return b.behind.Load() || b.tables.Load() >= urgentTables }

// behind reports whether the flusher falls behind: while it writes what is frozen, a third as much has been applied.
func (l *layers) behind() bool {
	var frozen int64
	for _, f := range l.frozen {
		frozen += f.taken()
	}
	return len(l.frozen) > 0 && 3*l.active.taken() >= frozen
}

// taken is how many bytes it has taken in, values in the log included, but for those whose place was used again.
func (m *memtable) taken() int64 { return m.bytes + m.left + m.over }

// change takes tables out of the count and adds others. Events come late: what was taken out before is passed over.
func (b *backpressure) change(out, in []pebble.TableInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.numbers == nil {
		b.numbers = map[uint64]struct{}{}
	}
	for _, t := range out {
		delete(b.numbers, uint64(t.FileNum))
	}
	for _, t := range in {
		b.numbers[uint64(t.FileNum)] = struct{}{}
	}
	b.tables.Store(int64(len(b.numbers)))
}

// clear is told that level 0 is empty.
func (b *backpressure) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.numbers)
	b.tables.Store(0)
}

// flush, ingested and compaction keep the count of level 0's tables.
func (b *backpressure) flush(i pebble.FlushInfo) {
	if i.Err == nil {
		b.change(nil, i.Output)
	}
}

func (b *backpressure) ingested(i pebble.TableIngestInfo) {
	for _, t := range i.Tables {
		if i.Err == nil && t.Level == 0 {
			b.change(nil, []pebble.TableInfo{t.TableInfo})
		}
	}
}

func (b *backpressure) compaction(i pebble.CompactionInfo) {
	if i.Err != nil {
		return
	}
	for _, in := range i.Input {
		if in.Level == 0 {
			b.change(in.Tables, nil)
		}
	}
	if i.Output.Level == 0 {
		b.change(nil, i.Output.Tables)
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

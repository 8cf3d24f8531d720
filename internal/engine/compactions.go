package engine

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// compactions says when Pebble may compact: not before the engine is told that its owner has started, and then as many at a
// time as Pebble's own scheduler would allow. A start is when clients wait, and a store that was killed in the middle of a
// compaction has it due again: at once it would take cores and disk from the log's replay, and pebble.Open itself waits for
// what runs.
//
// Pebble asks with DB.mu held, which comes before mu. Whatever is allowed later is granted by a goroutine of its own, which
// holds nothing.
type compactions struct {
	db   pebble.DBForCompaction
	wake chan struct{} // one token: look again
	quit chan struct{}
	done sync.WaitGroup

	mu struct {
		sync.Mutex
		started bool // they need not wait any more
		closed  bool
		running int
	}
}

var (
	_ pebble.CompactionScheduler   = (*compactions)(nil)
	_ pebble.CompactionGrantHandle = (*compactions)(nil)
)

func newCompactions() *compactions {
	return &compactions{wake: make(chan struct{}, 1), quit: make(chan struct{})}
}

// start lets compactions run.
func (c *compactions) start() {
	c.mu.Lock()
	before := c.mu.started
	c.mu.started = true
	c.mu.Unlock()
	if !before {
		c.poke()
	}
}

// poke has the granter look again. The caller may hold any lock.
func (c *compactions) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Register implements pebble.CompactionScheduler.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) {
	c.db = db
	// The granter, started by pebble.Open, owns nothing. It ends when Pebble closes; Unregister waits for it.
	c.done.Go(c.grant)
}

// Unregister implements pebble.CompactionScheduler. Open calls it, too, when it fails: pebble.Open does not.
func (c *compactions) Unregister() {
	c.mu.Lock()
	before := c.mu.closed
	c.mu.closed = true
	c.mu.Unlock()
	if !before {
		close(c.quit)
	}
	c.done.Wait()
}

// TrySchedule implements pebble.CompactionScheduler.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if c.take() {
		return true, c
	}
	c.poke() // the granter may have taken one that it is about to give back
	return false, nil
}

func (c *compactions) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.started || c.mu.closed || c.mu.running >= c.db.GetAllowedWithoutPermission() {
		return false
	}
	c.mu.running++
	return true
}

// grant is the granter: it offers what TrySchedule refused once that has changed.
func (c *compactions) grant() {
	for {
		select {
		case <-c.wake:
		case <-c.quit:
			return
		}
		for c.take() {
			if waiting, _ := c.db.GetWaitingCompaction(); !waiting || !c.db.Schedule(c) {
				c.ended()
				break
			}
		}
	}
}

func (c *compactions) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.running--
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler: more may be allowed than before.
func (c *compactions) UpdateGetAllowedWithoutPermission() { c.poke() }

// Done implements pebble.CompactionGrantHandle.
func (c *compactions) Done() {
	c.ended()
	c.poke()
}

// Started implements pebble.CompactionGrantHandle.
func (c *compactions) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (c *compactions) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Started tells the engine that its owner has started and that compactions may run, which wait since Open. They also run
// once something was flushed, or Apply has waited. From now on background work keeps to its budget. Calls after the first do nothing.
func (e *Engine) Started() {
	e.started.Store(true)
	e.compactions.start()
}

package engine

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/understudy-kv/understudy/wire"
)

// Engine is one shard's data and position. See the package comment for who may call what.
type Engine struct {
	dir    string
	o      Options
	own    *Shared // caches made by Open, or nil
	gate   *gate
	health *health
	db     *pebble.DB
	tables sstable.WriterOptions // of those that the flusher writes
	tx     *Tx

	compactions *compactions

	// layers are the present memtables. They are read without a lock and replaced with write held, which Apply and the
	// flusher hold, and whoever needs memtables and Pebble of one moment. The order is write, at, use; health's mutex is a leaf.
	layers   atomic.Pointer[layers]
	write    sync.Mutex
	nextID   uint64        // of the newest memtable; guarded by write
	frozenAt wire.Position // behind the newest memtable that was frozen, or what Pebble had at first; guarded by write
	hashes   []uint32      // Apply's
	touched  uint64        // Apply's; keeps its loads from being optimized away
	flusher  flusher
	spare    spare // the memtables'

	pressure backpressure
	hurries  atomic.Int32 // calls that wait for background work
	started  atomic.Bool  // the owner has started
	indexLow int64        // no index entry in the engine has a lower deadline; the owner's, not persistent

	at struct { // the visible position
		sync.Mutex
		wire.Position
	}
	durable struct {
		stale atomic.Bool // a flush has ended since the position was read
		sync.Mutex
		offset uint64
	}
	use struct { // calls in flight, and views
		sync.Mutex
		idle    *sync.Cond
		n       int
		closing bool
		views   map[*View]struct{}
		pins    map[uint64]int // offsets from which captures need the log
		epoch   uint           // see reclaimLocked
		readers [2]int         // of n, those that are readers, by the epoch they began in
	}
	closing atomic.Bool
}

// Open opens the engine in dir, or makes it there: dir is empty, or what an engine left, or the files of a
// [Engine.Checkpoint]. Another process that has it open is an error. Nothing is compacted before [Engine.Started].
func Open(dir string, o Options) (*Engine, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	dir = o.FS.PathDir(o.FS.PathJoin(dir, "x")) // as Pebble will spell it in the names of its files
	e := &Engine{dir: dir}
	if o.Shared == nil {
		e.own = NewShared(8<<20, 1, 0)
		o.Shared = e.own
		o.EnsureDefaults()
	}
	e.o = o
	e.gate = newGate(o.FS, dir, o.BeforeFlush)
	e.health = newHealth(dir, o, e.gate)
	e.gate.fatal = e.health.fail
	e.gate.quiet.tables = e.pressure.tables.Load
	e.use.idle = sync.NewCond(&e.use)
	e.use.views = map[*View]struct{}{}
	p := pebbleOptions(o, e.gate, e.worker())
	p.Logger = e.health
	e.compactions = newCompactions()
	p.Experimental.CompactionScheduler = e.compactions
	p.EventListener = e.health.listener(func(i pebble.FlushInfo) {
		e.durable.stale.Store(true)
		e.pressure.flush(i)
	}, e.pressure.compaction, e.pressure.ingested)
	db, err := pebble.Open(dir, p)
	if err == nil { // the directory is this engine's now
		if err = removeStaged(o.FS, dir); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		e.compactions.Unregister()
		e.closeOwn()
		return nil, fmt.Errorf("engine: open %s: %w; restore it from a replica or a backup, or move it away to rebuild it", dir, err)
	}
	e.gate.opened.Store(true)
	e.db = db
	p.EnsureDefaults()
	e.tables = p.MakeWriterOptions(0, formatMajor.MaxTableFormat())
	e.tx = newTx(e)
	e.flusher.wake, e.flusher.done = make(chan struct{}, 1), make(chan struct{})
	e.layers.Store(newLayers(newMemtable(0, 0, nil, 0), nil)) // for the flusher
	// The flusher, started here, owns what is handed to Pebble. It ends when the engine begins to close, and Close waits
	// for it, unless the fence has parked it.
	go e.flushLoop()
	pos, err := readPosition(db, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("engine: position of %s: %w", dir, err), e.Close())
	}
	e.at.Position, e.durable.offset, e.frozenAt = pos, pos.Offset, pos
	e.layers.Store(newLayers(e.newMemtable(0, pos.Offset, nil, 0), nil))
	tables, err := db.SSTables()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("engine: tables of %s: %w", dir, err), e.Close())
	}
	for _, t := range tables[0] {
		e.pressure.change(nil, []pebble.TableInfo{t.TableInfo})
	}
	return e, nil
}

// readPosition reads the position that an iterator with these options sees; zero if there is none.
func readPosition(db *pebble.DB, o *pebble.IterOptions) (wire.Position, error) {
	it, err := db.NewIter(o)
	if err != nil {
		return wire.Position{}, err
	}
	var pos wire.Position
	if it.SeekGE(positionKey) && string(it.Key()) == string(positionKey) {
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			pos, err = wire.ParsePosition(v)
		}
	}
	return pos, errors.Join(err, it.Error(), it.Close())
}

// Position is the position that readers see now; zero if nothing was ever applied.
func (e *Engine) Position() (wire.Position, error) {
	e.at.Lock()
	defer e.at.Unlock()
	return e.at.Position, nil
}

// Durable is the offset up to which everything survives a power cut without the log; 0 if nothing does.
func (e *Engine) Durable() (uint64, error) {
	if err := e.enter(); err != nil {
		return 0, err
	}
	defer e.exit()
	e.durable.Lock()
	defer e.durable.Unlock()
	if !e.durable.stale.Swap(false) {
		return e.durable.offset, nil
	}
	pos, err := readPosition(e.db, &pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if err != nil {
		e.durable.stale.Store(true)
		return e.durable.offset, fmt.Errorf("engine: durable position: %w", err)
	}
	e.durable.offset = pos.Offset
	return pos.Offset, nil
}

// Err is why writes are refused now: [ErrFenced], [ErrStalled], or nil. A caller that asks before it appends to the log
// never appends what it then cannot apply.
func (e *Engine) Err() error {
	_, err := e.health.err()
	return err
}

// Tx is the engine's one transaction, for the owner goroutine.
func (e *Engine) Tx() *Tx { return e.tx }

// Dir is the engine's directory.
func (e *Engine) Dir() string { return e.dir }

// enter begins a call that Close waits for.
func (e *Engine) enter() error {
	e.use.Lock()
	defer e.use.Unlock()
	if e.use.closing {
		return ErrClosed
	}
	e.use.n++
	return nil
}

func (e *Engine) exit() {
	e.use.Lock()
	defer e.use.Unlock()
	if e.use.n--; e.use.n == 0 {
		e.use.idle.Broadcast()
	}
}

// enterReader is enter for a Reader. It returns the epoch, for exitReader.
func (e *Engine) enterReader() (epoch uint, err error) {
	e.use.Lock()
	defer e.use.Unlock()
	if e.use.closing {
		return 0, ErrClosed
	}
	e.use.n++
	e.use.readers[e.use.epoch&1]++
	return e.use.epoch, nil
}

func (e *Engine) exitReader(epoch uint) {
	e.use.Lock()
	defer e.use.Unlock()
	e.use.readers[epoch&1]--
	if e.use.n--; e.use.n == 0 {
		e.use.idle.Broadcast()
	}
}

// Close ends every view and closes the store; calls in flight end with [ErrClosed]. It does not flush: what is not
// durable is in the log, and a caller that stops cleanly calls [Engine.Flush] first. A second Close does nothing.
//
// A store behind the fence cannot be closed, only left: Pebble's goroutines and its lock on the directory stay until the
// process ends. The directory may be read, copied and deleted.
func (e *Engine) Close() error {
	e.use.Lock()
	if e.use.closing {
		e.use.Unlock()
		return nil
	}
	e.use.closing = true
	e.closing.Store(true)
	close(e.gate.closing)
	for e.use.n > 0 {
		e.use.idle.Wait()
	}
	views := e.use.views
	e.use.views = nil
	e.use.Unlock()

	if e.tx != nil {
		e.tx.release()
	}
	e.spare.fills.Wait()
	err := e.unlessFenced(func() error {
		<-e.flusher.done
		var errs []error
		for v := range views {
			errs = append(errs, v.content.base.Close())
		}
		return errors.Join(append(errs, e.db.Close())...)
	})
	if errors.Is(err, ErrFenced) {
		return nil
	}
	e.closeOwn()
	if err != nil {
		return fmt.Errorf("engine: close %s: %w", e.dir, err)
	}
	return nil
}

// unlessFenced calls f, which waits for Pebble's background work, and returns its result, or ErrFenced as soon as the
// fence goes up: then the work never ends.
func (e *Engine) unlessFenced(f func() error) error {
	if e.gate.isFenced() {
		return ErrFenced
	}
	done := make(chan error, 1)
	// Started here for the length of f, which it alone runs. This function waits for it unless the fence goes up.
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-e.gate.fenced:
		return ErrFenced
	}
}

func (e *Engine) closeOwn() {
	if e.own != nil {
		e.own.Close()
	}
}

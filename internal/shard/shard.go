package shard

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

// Errors of this package.
var (
	// ErrClosed is returned by every call once the shard is being closed.
	ErrClosed = errors.New("shard is closed")
	// ErrPassed is returned by At when the offset was applied already, together with others.
	ErrPassed = errors.New("that offset has been passed")
	// ErrFollows is why a shard that follows a primary takes no mutations of its own.
	ErrFollows = errors.New("the shard follows a primary")
	// ErrWritable is returned by Ingest on a shard that takes commands: whatever still comes from an old primary must not
	// land over a client's write.
	ErrWritable = errors.New("the shard takes commands, not a primary's frames")
	// ErrUnsettled is why nothing may be read, copied or promoted: the shard has undone a surplus, and its data is no state of
	// any one position until it has applied what came since.
	ErrUnsettled = errors.New("the shard is in the middle of a rejoin by difference")
	// ErrGap is returned by Ingest for frames that do not begin where the shard is.
	ErrGap = errors.New("frames do not continue the log")
)

// Shard is one open shard. All methods may be called from any goroutine unless they say otherwise.
//
// Lock order: machineMu before mu. The loop takes mu only to exchange queues, never during IO.
type Shard struct {
	opts Options

	log       atomic.Pointer[backlog.Log]
	lineage   atomic.Pointer[wire.Lineage]
	applied   atomic.Uint64                 // offset of what readers see
	started   atomic.Bool                   // there is a history: position is not "none"
	settles   atomic.Pointer[wire.Position] // from there on the data is whole; nil while it is
	writable  atomic.Bool                   // it takes commands; otherwise it follows a primary
	commit    atomic.Int64                  // commit time of the last applied frame, microseconds
	fault     atomic.Pointer[fault]
	policy    atomic.Pointer[Fsync]
	limits    atomic.Pointer[limits] // of the backlog on disk, if they were changed
	tick      atomic.Pointer[func(*Group)]
	observe   atomic.Pointer[func(wire.Batch)]
	retention atomic.Pointer[func() (uint64, bool)]
	onChange  atomic.Pointer[func()]
	engine    atomic.Pointer[string] // directory of the state machine in use; nil until the shard is open

	// machineMu is held for reading while the state machine is used beside the loop, and for writing while it is replaced.
	machineMu sync.RWMutex
	machine   StateMachine
	live      atomic.Pointer[StateMachine] // the same, for who looks without a lock

	// manifestMu serialises changes of the manifest.
	manifestMu sync.Mutex
	manifest   manifest

	mu struct {
		sync.Mutex
		jobs    []Job
		control []func()
		ingests []*ingest
		pause   time.Time // ingests wait until then
		closed  bool

		owned    bool // somebody has the turn (turn.go)
		wanted   bool // the loop waits for it
		blocking int  // of jobs: how many only the loop may run
	}
	pace atomic.Pointer[pace] // of the flush under way; nil if there is none
	slow atomic.Int64         // until then groups are the loop's, nanoseconds since 1970; see Serve
	wake chan struct{}        // capacity 1: the loop has something to take
	turn chan struct{}        // capacity 1: the turn that the loop waits for has ended
	quit chan struct{}        // closed by Close: the loop ends once its queues are empty
	tidy chan struct{}        // capacity 1: the housekeeper has something to look at
	trim chan chan struct{}   // the housekeeper trims once, and closes what was sent
	done sync.WaitGroup

	// What follows, and all writes of log and state machine, belong to whoever has the turn.
	group   Group
	pending []Job
	armed   []*armed
	stalled *stalled      // what is in the log and waits for room to be applied
	grown   int64         // bytes appended since the housekeeper was told to look at the log
	hold    *Hold         // who executes the group announces it
	waited  time.Duration // what the loop waited for a pace since the last beginCommit

	unsettling bool // the log has been told that the end of a rejoin cannot be recorded
}

// stalled is a batch that was appended, and that the state machine had no room for.
type stalled struct {
	batch  wire.Batch
	commit int64
}

// fault is why the shard takes no writes. A transient one is forgotten when its cause has gone (room on the disk).
type fault struct {
	err       error
	transient bool
}

// Position is where the state that readers see is; zero for a shard that never had a history.
func (s *Shard) Position() wire.Position {
	if !s.started.Load() {
		return wire.Position{}
	}
	return s.Lineage().At(s.applied.Load())
}

// Lineage is the history of the shard, oldest generation first. It must not be changed.
func (s *Shard) Lineage() wire.Lineage { return *s.lineage.Load() }

// Log is the shard's log. It is replaced when a snapshot is installed; readers of the old one get an error and ask again.
func (s *Shard) Log() *backlog.Log { return s.log.Load() }

// ID is the shard's id.
func (s *Shard) ID() int { return s.opts.Shard }

// Dir is the shard's directory. A user may keep directories of its own in it, other than engine-N and log-N.
func (s *Shard) Dir() string { return s.opts.Dir }

// Durable is the offset up to which the shard survives power loss. It is never past what is applied.
func (s *Shard) Durable() uint64 { return min(s.Log().Durable(), s.applied.Load()) }

// CommitMicros is when the primary committed the last applied frame, in microseconds since 1970; 0 if none was applied
// since the shard was opened.
func (s *Shard) CommitMicros() int64 { return s.commit.Load() }

// Err is why the shard takes no writes, or nil.
func (s *Shard) Err() error {
	if f := s.fault.Load(); f != nil {
		return f.err
	}
	return nil
}

// fence makes the shard refuse writes. The first lasting fault stays.
func (s *Shard) fence(err error, transient bool) {
	if !transient && errors.Is(err, syscall.ENOSPC) {
		err = errors.New(err.Error()) // want of room that does not pass is not to be taken for one that does
	}
	for {
		old := s.fault.Load()
		if old != nil && !old.transient {
			return
		}
		if s.fault.CompareAndSwap(old, &fault{err: err, transient: transient}) {
			if old == nil || !transient {
				s.opts.Logger.Error("shard refuses writes", "shard", s.opts.Shard, "error", err, "transient", transient)
			}
			return
		}
	}
}

// SetRetention says which offset of the log slots need: f returns the lowest one, and false when no slot needs any. Before
// it is called, a writable shard keeps what the disk budget allows.
func (s *Shard) SetRetention(f func() (uint64, bool)) { s.retention.Store(&f) }

// SetTick has f called on the loop every 100 ms with a group to write into, while the shard takes writes.
func (s *Shard) SetTick(f func(*Group)) { s.tick.Store(&f) }

// SetObserver has f called on the loop with every ingested batch once it is applied, so that watched keys can be found.
func (s *Shard) SetObserver(f func(wire.Batch)) { s.observe.Store(&f) }

// SetOnChange has f called after the lineage or the log has become another one. f is called on the loop or on the goroutine
// of the call that did it; it must be quick and must not call the shard's blocking methods.
func (s *Shard) SetOnChange(f func()) { s.onChange.Store(&f) }

func (s *Shard) changed() {
	if f := s.onChange.Load(); f != nil {
		(*f)()
	}
}

// Fsync is the present policy.
func (s *Shard) Fsync() Fsync { return *s.policy.Load() }

// SetFsync changes the policy. When it returns nil the weaker of the two policies is on record, so that a power loss
// during the change is judged by what was promised for certain; and a change to always has synced what was there.
func (s *Shard) SetFsync(p Fsync) error {
	if _, err := ParseFsync(string(p)); err != nil {
		return err
	}
	err := s.updateManifest(func(m *manifest) { m.Weakest = weaker(m.Weakest, p) })
	if err != nil {
		return err
	}
	s.policy.Store(&p)
	if p == FsyncAlways {
		return s.Log().Sync()
	}
	return nil
}

// limits are those of a backlog on disk, in bytes.
type limits struct{ keep, disk int64 }

// SetBacklogLimits changes Options.BacklogKeep and BacklogDisk, for this log and those that a snapshot or a rewind puts in
// its place.
func (s *Shard) SetBacklogLimits(keep, disk int64) error {
	if err := s.Log().SetLimits(keep, disk); err != nil {
		return err
	}
	s.limits.Store(&limits{keep, disk})
	return s.Log().SetLimits(keep, disk) // another one may have come into its place before they were stored
}

// backlogLimits are Options.BacklogKeep and BacklogDisk, or what they were changed to.
func (s *Shard) backlogLimits() (keep, disk int64) {
	if l := s.limits.Load(); l != nil {
		return l.keep, l.disk
	}
	return s.opts.BacklogKeep, s.opts.BacklogDisk
}

// updateManifest changes the manifest on disk and then in memory.
func (s *Shard) updateManifest(change func(*manifest)) error {
	s.manifestMu.Lock()
	defer s.manifestMu.Unlock()
	m := s.manifest
	change(&m)
	m.Updated = s.opts.Now().UTC().Format(time.RFC3339)
	if err := writeManifest(s.opts.FS, s.opts.Dir, m); err != nil {
		return fmt.Errorf("shard %d: writing %s: %w", s.opts.Shard, manifestName, err)
	}
	s.manifest = m
	return nil
}

// current is the manifest as it is on disk.
func (s *Shard) current() manifest {
	s.manifestMu.Lock()
	defer s.manifestMu.Unlock()
	return s.manifest
}

// AdoptLineage takes over the lineage of the primary that the shard resumes from. The caller has checked that the
// shard's position lies on it. Epochs ahead of the shard's offset take effect as it reaches them.
func (s *Shard) AdoptLineage(l wire.Lineage) error {
	if l.Equal(s.Lineage()) {
		return nil
	}
	if err := l.Validate(); err != nil {
		return err
	}
	if at := s.settles.Load(); at != nil && !l.Contains(*at, math.MaxUint64) {
		return fmt.Errorf("shard %d: %w: its data is whole from %s on, which does not lie on the lineage %s", s.opts.Shard, ErrUnsettled, at, l)
	}
	if err := s.updateManifest(func(m *manifest) { m.setLineage(l) }); err != nil {
		return err
	}
	s.lineage.Store(&l)
	s.changed()
	s.opts.Logger.Info("took over the primary's lineage", "shard", s.opts.Shard, "generation", l.Current(), "generations", len(l))
	return nil
}

// Checkpoint has the state machine write its files into dir, which must not exist, and returns their position. Writes go
// on meanwhile. It returns ErrUnsettled while the data is not whole.
func (s *Shard) Checkpoint(dir string) (wire.Position, error) {
	at, _, err := s.CheckpointSummed(dir)
	return at, err
}

// CheckpointSummed is Checkpoint. Of files whose sums the state machine knows it returns them; see [Summer].
func (s *Shard) CheckpointSummed(dir string) (at wire.Position, known []wire.File, err error) {
	err = s.Use(func(m StateMachine) error {
		if summer, ok := m.(Summer); ok {
			at, known, err = summer.CheckpointSummed(dir)
		} else {
			at, err = m.Checkpoint(dir)
		}
		if err != nil {
			return fmt.Errorf("shard %d: checkpoint into %s: %w", s.opts.Shard, dir, err)
		}
		at = s.Lineage().At(at.Offset)
		return nil
	})
	return at, known, err
}

// Quiet asks the state machine to put off work of its own until release is called; see [Quieter]. Nothing waits for it, and
// a state machine that takes the present one's place hears nothing of it.
func (s *Shard) Quiet() (release func()) {
	if m := s.live.Load(); m != nil {
		if q, ok := (*m).(Quieter); ok {
			return q.Quiet()
		}
	}
	return func() {}
}

// Live is the state machine that readers see now, or nil if there is none to be read. It may be replaced and closed at any
// moment: whoever uses it needs a state machine that can be used while it is closed, and asks again if it was.
func (s *Shard) Live() StateMachine {
	for {
		m := s.live.Load()
		if m == nil || !s.Settled() {
			return nil
		}
		if s.live.Load() == m { // otherwise it may be the next one's data that is whole
			return *m
		}
	}
}

// Now is the shard's clock, in milliseconds since 1970: what its groups judge deadlines by.
func (s *Shard) Now() int64 { return s.opts.Now().UnixMilli() }

// Use calls f with the state machine, which stays open until f returns. A switch to other data waits for f. It returns
// ErrUnsettled while the data is not whole.
func (s *Shard) Use(f func(StateMachine) error) error {
	return s.use(func(m StateMachine) error {
		if !s.Settled() {
			return fmt.Errorf("shard %d: %w", s.opts.Shard, ErrUnsettled)
		}
		return f(m)
	})
}

// use is Use for what does not read the data.
func (s *Shard) use(f func(StateMachine) error) error {
	s.machineMu.RLock()
	defer s.machineMu.RUnlock()
	if s.machine == nil {
		return ErrClosed
	}
	return f(s.machine)
}

// Close stops the shard cleanly: queued work is done, the log is synced, the state machine is flushed, and the clean stop
// is on record, so that the next start replays nothing and goes on with the same generation. With a fault, it only closes.
func (s *Shard) Close() error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		s.done.Wait()
		return nil
	}
	s.mu.closed = true
	s.mu.Unlock()
	close(s.quit)
	s.done.Wait()

	s.machineMu.Lock()
	defer s.machineMu.Unlock()
	err := s.Err()
	if err == nil {
		err = s.Log().Sync()
	}
	if err == nil {
		release := s.hurry()
		err = s.machine.Flush()
		release()
	}
	if err == nil {
		err = s.updateManifest(func(m *manifest) { m.Clean = true })
	}
	err = errors.Join(err, s.machine.Close(), s.Log().Close())
	s.machine = nil
	s.live.Store(nil)
	return err
}

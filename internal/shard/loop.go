package shard

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/polite"
	"github.com/understudy-kv/understudy/wire"
)

// tickEvery is how often the loop calls the tick: expired keys are gone at most this long after their deadline, plus the
// time that deleting them takes.
const tickEvery = 100 * time.Millisecond

// Group is what the jobs of one group share: they execute one after the other, their mutations become one frame, and all
// of them happen or none.
type Group struct {
	Builder      wire.Builder
	ID           uint64       // of this group; never repeats while the shard is open
	NowMillis    int64        // the group's one idea of the time, in milliseconds since 1970
	StateMachine StateMachine // may be read; written only through the builder
	Err          error        // why the shard takes no writes now; jobs that only read may run
	Unread       error        // why nothing may be read either: ErrUnsettled, or nil

	limit int
}

// Full reports whether the group has taken enough.
func (g *Group) Full() bool { return g.Builder.Len() >= g.limit }

// Job is work for the shard. A Job belongs to the shard from Submit or Offer until Committed has been called for a Run that
// returned true.
type Job interface {
	// Run executes in the shard's turn and adds its mutations to the group's builder. It returns false to be called again
	// in a next group, which it must do only when the group is full.
	Run(*Group) (done bool)
	// Committed is called in the shard's turn after each group that Run took part in. If err is nil the group is applied, visible
	// and as durable as the policy says, and next is the offset behind it. Otherwise nothing of the group happened.
	Committed(next uint64, err error)
}

// Submit hands j to the loop; it may block there. Jobs run in the order of their Submit and Offer calls. The only error is
// ErrClosed.
func (s *Shard) Submit(j Job) error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.mu.jobs = append(s.mu.jobs, j)
	s.mu.blocking++
	s.mu.Unlock()
	poke(s.wake)
	return nil
}

// do runs f on the loop, between two groups, and waits for it.
func (s *Shard) do(f func() error) error {
	result := make(chan error, 1)
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.mu.control = append(s.mu.control, func() { result <- f() })
	s.mu.Unlock()
	poke(s.wake)
	return <-result
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Shard) loop() {
	ticker := polite.NewTicker(tickEvery)
	defer ticker.Stop()
	quit := s.quit
	stopping, more := false, false
	for {
		ticked := false
		if !more {
			select {
			case <-s.wake:
			case <-ticker.C:
				ticked = true
			case <-quit:
				quit, stopping = nil, true
			}
		}
		select { // the tick has its turn under any load
		case <-ticker.C:
			ticked = true
		default:
		}
		if ticked {
			ticker.Next()
		}
		s.takeTurn()
		control, in, paused := s.take()
		for _, f := range control {
			f()
		}
		if in != nil {
			s.runIngest(in)
		}
		if len(s.pending) > 0 {
			s.runGroup()
		}
		if ticked && !stopping {
			s.runTick()
		}
		if stopping && len(s.pending) == 0 && len(control) == 0 && (in == nil || paused) {
			s.drop()
			s.endTurn()
			return
		}
		more = len(s.pending) > 0
		s.endTurn()
	}
}

// take empties the queues into the loop's own: all jobs and control calls, and one ingest.
func (s *Shard) take() (control []func(), in *ingest, paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		s.pending, s.mu.jobs = s.mu.jobs, s.pending[:0]
	} else {
		s.pending = append(s.pending, s.mu.jobs...)
		s.mu.jobs = s.mu.jobs[:0]
	}
	s.mu.blocking = 0
	control, s.mu.control = s.mu.control, nil
	paused = s.pausedLocked()
	if len(s.mu.ingests) > 0 && !paused {
		in = s.mu.ingests[0]
		s.mu.ingests = append(s.mu.ingests[:0], s.mu.ingests[1:]...)
		if len(s.mu.ingests) > 0 {
			poke(s.wake)
		}
	}
	return control, in, paused
}

// drop refuses what can no longer run when the loop ends.
func (s *Shard) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.mu.ingests {
		in.done <- ErrClosed
	}
	for _, a := range s.armed {
		a.done <- ErrClosed
	}
	s.mu.ingests, s.armed = nil, nil
}

// runGroup executes pending jobs until the group is full or there are none, and commits them together.
func (s *Shard) runGroup() {
	s.begin()
	ran, left := 0, 0
	for _, j := range s.pending {
		ran++
		if !j.Run(&s.group) {
			left = 1
			break
		}
		if s.group.Full() {
			break
		}
	}
	begun := s.beginCommit()
	next, err := s.commitGroup()
	s.noteCommit(begun)
	for i, j := range s.pending[:ran] {
		if i == ran-1 && left == 1 {
			// It comes again, so it must still be there when Committed returns.
			j.Committed(next, err)
			break
		}
		s.pending[i] = nil
		j.Committed(next, err)
	}
	n := copy(s.pending, s.pending[ran-left:])
	clear(s.pending[n:])
	s.pending = s.pending[:n]
}

func (s *Shard) runTick() {
	s.recheck()
	s.settle(s.applied.Load())
	tick := s.tick.Load()
	if tick == nil || s.Err() != nil || !s.Writable() {
		return
	}
	s.begin()
	(*tick)(&s.group)
	// A fault is on record already; the tick's effects did not happen and will be tried again.
	_, _ = s.commitGroup()
}

func (s *Shard) begin() {
	g := &s.group
	g.Builder.Reset()
	g.ID++
	g.NowMillis = s.opts.Now().UnixMilli()
	if g.Unread = nil; !s.Settled() {
		g.Unread = fmt.Errorf("shard %d: %w", s.opts.Shard, ErrUnsettled)
	}
	if g.Err = s.Err(); g.Err == nil && !s.Writable() {
		g.Err = fmt.Errorf("shard %d: %w", s.opts.Shard, ErrFollows)
	}
}

// commitGroup appends the group's frame, applies it and publishes it. It returns the offset behind everything applied.
func (s *Shard) commitGroup() (uint64, error) {
	g := &s.group
	log := s.Log()
	first := log.Next()
	if g.Builder.Count() == 0 {
		return first, nil
	}
	if g.Err != nil {
		return first, g.Err
	}
	if err := s.Err(); err != nil {
		return first, err
	}
	next := first + uint64(g.Builder.Count())
	commit := s.opts.Now().UnixMicro()
	raw, err := g.Builder.Finish(first, commit)
	if err != nil {
		return first, fmt.Errorf("shard %d: %w", s.opts.Shard, err)
	}
	if err := s.commitFrames(wire.Batch{Frames: raw, First: first, At: s.Lineage().Reached(next)}, commit); err != nil {
		return first, err
	}
	g.Builder.Shrink(4 * s.opts.GroupBytes)
	return next, nil
}

// commitFrames is the one way of a batch into the shard: log, sync by policy, state machine, publication.
func (s *Shard) commitFrames(b wire.Batch, commit int64) error {
	log := s.Log()
	next := b.At.Offset
	if err := s.machineErr(); err != nil {
		err = fmt.Errorf("shard %d: %w", s.opts.Shard, err)
		s.fence(err, errors.Is(err, syscall.ENOSPC))
		return err
	}
	if err := log.Append(b.Frames, b.First, next); err != nil {
		full := errors.Is(err, syscall.ENOSPC)
		err = fmt.Errorf("shard %d: writing the log: %w", s.opts.Shard, err)
		s.fence(err, full)
		return err
	}
	if s.grown += int64(len(b.Frames)); s.grown >= tidyEvery {
		s.grown = 0
		s.keepWithinCap(log)
	}
	if p := s.pace.Load(); p != nil {
		s.keepPace(p, len(b.Frames))
	}
	if s.Fsync() == FsyncAlways {
		if err := log.Sync(); err != nil {
			err = fmt.Errorf("shard %d: syncing the log: %w", s.opts.Shard, err)
			s.fence(err, false)
			return err
		}
	}
	if err := s.apply(b, commit); err != nil {
		full := errors.Is(err, syscall.ENOSPC)
		if full {
			b.Frames = append([]byte(nil), b.Frames...)
			s.stalled = &stalled{batch: b, commit: commit}
		}
		s.fence(err, full)
		return err
	}
	return nil
}

// apply is the second half of commitFrames: state machine and publication. The batch is what was appended last.
func (s *Shard) apply(b wire.Batch, commit int64) error {
	next := b.At.Offset
	log := s.Log()
	if err := applyLogged(s.machine, b, log, log.End()-int64(len(b.Frames))); err != nil {
		return fmt.Errorf("shard %d: applying offsets [%d, %d): %w", s.opts.Shard, b.First, next, err)
	}
	s.settle(next) // before anybody hears of the position: who does can read it
	s.commit.Store(commit)
	s.applied.Store(next)
	if s.hold == nil {
		log.Publish(next)
	} else if log.PublishHeld(next) {
		s.hold.Note(log)
	}
	s.runArmed(next)
	return nil
}

// applyLogged applies a batch that lies in the log from the address on.
func applyLogged(m StateMachine, b wire.Batch, log *backlog.Log, addr int64) error {
	if l, ok := m.(Leaver); ok {
		return l.ApplyLogged(b, log, addr)
	}
	return m.Apply(b)
}

// recheck forgets a transient fault once there is room on the disk again.
func (s *Shard) recheck() {
	f := s.fault.Load()
	if f == nil || !f.transient {
		return
	}
	usage, err := s.opts.FS.GetDiskUsage(s.opts.Dir)
	if err == nil && usage.AvailBytes < roomAgain || s.machineErr() != nil || !s.applyStalled() {
		return
	}
	if s.fault.CompareAndSwap(f, nil) {
		s.opts.Logger.Info("shard takes writes again", "shard", s.opts.Shard, "available_bytes", usage.AvailBytes)
	}
}

// machineErr is why the state machine would refuse a batch now, where it can tell: asked before the append, it keeps the
// log from taking what cannot be applied.
func (s *Shard) machineErr() error {
	if m, ok := s.machine.(interface{ Err() error }); ok {
		return m.Err()
	}
	return nil
}

// applyStalled applies what is in the log and found no room before; until that is done nothing may follow it. It reports
// whether nothing stands in the way any more.
func (s *Shard) applyStalled() bool {
	if s.stalled == nil {
		return true
	}
	b := s.stalled.batch
	if err := s.apply(b, s.stalled.commit); err != nil {
		if !errors.Is(err, syscall.ENOSPC) {
			s.fence(err, false)
		}
		return false
	}
	s.stalled = nil
	if f := s.observe.Load(); f != nil {
		(*f)(b)
	}
	return true
}

// tidyEvery is how much the log grows before it is trimmed, in bytes, if a second does not pass before that.
const tidyEvery = 4 << 20

// roomAgain is how much room on the disk makes it worth trying to write again, in bytes.
const roomAgain = 16 << 20

// armed is a call that waits for an offset.
type armed struct {
	offset uint64
	f      func(wire.Position, StateMachine) error
	done   chan error // capacity 1
}

// At calls f on the loop when exactly the mutations before offset are applied, so that f sees the state of that position.
// f must be quick: it holds up the shard. At returns f's error, ErrPassed if the offset is passed already or lies inside a
// frame, ErrUnsettled while the data is not whole, or ctx's error. A pause of the ingest ends, since the offset could not be reached otherwise.
func (s *Shard) At(ctx context.Context, offset uint64, f func(wire.Position, StateMachine) error) error {
	a := &armed{offset: offset, f: f, done: make(chan error, 1)}
	err := s.do(func() error {
		if !s.Settled() {
			return fmt.Errorf("shard %d: %w", s.opts.Shard, ErrUnsettled)
		}
		s.mu.Lock()
		s.mu.pause = time.Time{}
		s.mu.Unlock()
		poke(s.wake)
		s.armed = append(s.armed, a)
		s.runArmed(s.applied.Load())
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		// The loop may be at it just now; do waits for that.
		_ = s.do(func() error { s.disarm(a); return nil })
		select {
		case err := <-a.done:
			return err
		default:
			return ctx.Err()
		}
	}
}

func (s *Shard) disarm(a *armed) {
	for i, b := range s.armed {
		if a == b {
			s.armed = append(s.armed[:i], s.armed[i+1:]...)
			return
		}
	}
}

func (s *Shard) runArmed(next uint64) {
	if len(s.armed) == 0 {
		return
	}
	keep := s.armed[:0]
	for _, a := range s.armed {
		switch {
		case a.offset > next:
			keep = append(keep, a)
		case a.offset == next:
			a.done <- a.f(s.Lineage().At(next), s.machine)
		default:
			a.done <- ErrPassed
		}
	}
	s.armed = keep
}

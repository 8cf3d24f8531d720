package shard

import (
	"errors"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

// ingest is a run of a primary's frames on its way into the shard.
type ingest struct {
	frames      []byte
	first, next uint64
	done        chan error // capacity 1
}

// Ingest appends the primary's frames to the log as they are, applies them and makes them visible; it returns when that
// is done. The caller has checked the frames (checksums, [wire.Frame.Check], contiguity) and must not touch them
// meanwhile. They must begin at the shard's next offset, otherwise the error is ErrGap. After an error nothing of the
// frames was applied, or the shard is fenced. Calls are served one after the other.
func (s *Shard) Ingest(frames []byte, first, next uint64) error {
	in := &ingest{frames: frames, first: first, next: next, done: make(chan error, 1)}
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.mu.ingests = append(s.mu.ingests, in)
	s.mu.Unlock()
	poke(s.wake)
	return <-in.done
}

// PauseIngest holds up ingests for at most d, or until At is called; 0 ends a pause. Reads go on.
func (s *Shard) PauseIngest(d time.Duration) {
	s.mu.Lock()
	s.mu.pause = time.Now().Add(d)
	if d <= 0 {
		s.mu.pause = time.Time{}
	}
	s.mu.Unlock()
	poke(s.wake)
}

func (s *Shard) runIngest(in *ingest) {
	in.done <- s.ingestAll(in)
}

// ingestAll feeds the run in pieces that end at the offsets somebody waits for in At.
func (s *Shard) ingestAll(in *ingest) error {
	if s.Writable() {
		return fmt.Errorf("shard %d: %w", s.opts.Shard, ErrWritable)
	}
	s.recheck()
	if f := s.fault.Load(); f != nil && (!f.transient || s.stalled != nil) {
		return f.err
	}
	if at := s.Log().Next(); in.first != at {
		return fmt.Errorf("shard %d: %w: they begin at %d, the log is at %d", s.opts.Shard, ErrGap, in.first, at)
	}
	if !s.started.Load() {
		return fmt.Errorf("shard %d has no history yet: it must be filled by a full sync first", s.opts.Shard)
	}
	first := in.first
	for rest := in.frames; len(rest) > 0; {
		piece, next, commit, err := s.cut(rest, in.next)
		if err != nil {
			return err
		}
		b := wire.Batch{Frames: rest[:piece], First: first, At: s.Lineage().At(next)}
		if err := s.commitFrames(b, commit); err != nil {
			return err
		}
		if f := s.observe.Load(); f != nil {
			(*f)(b)
		}
		first, rest = next, rest[piece:]
	}
	// A write that went through disproves a transient fault.
	if f := s.fault.Load(); f != nil && f.transient {
		s.fault.CompareAndSwap(f, nil)
	}
	return nil
}

// cut returns how many bytes of whole frames come before the next offset that somebody waits for, the offset behind
// them, and the last one's commit time.
func (s *Shard) cut(frames []byte, end uint64) (n int, next uint64, commit int64, err error) {
	for n < len(frames) {
		h, err := wire.ParseHeader(frames[n:])
		if err != nil || h.Kind != wire.KindMutations || n+h.Size() > len(frames) {
			return 0, 0, 0, fmt.Errorf("shard %d: ingest of unchecked bytes: %w", s.opts.Shard, errors.Join(err, wire.ErrMalformed))
		}
		n += h.Size()
		next, commit = h.Next(), h.Commit
		for _, a := range s.armed {
			if a.offset == next {
				return n, next, commit, nil
			}
		}
	}
	if next != end {
		return 0, 0, 0, fmt.Errorf("shard %d: %w: the frames end at %d, the caller says %d", s.opts.Shard, ErrGap, next, end)
	}
	return n, next, commit, nil
}

// Install replaces the shard's data by the snapshot in dir, which is moved into place. The snapshot must be at the
// position at, on lineage l; that is checked before anything is given up. A crash at any instant leaves the old data or the
// new. Readers see the old data until the switch. The old state machine's directory goes to Options.KeepPrevious.
func (s *Shard) Install(dir string, at wire.Position, l wire.Lineage) error {
	if err := l.Validate(); err != nil {
		return err
	}
	if !l.Contains(at, at.Offset) {
		return fmt.Errorf("shard %d: snapshot at %s does not lie on its lineage %s", s.opts.Shard, at, l)
	}
	return s.do(func() error { return s.install(dir, at, l) })
}

func (s *Shard) install(dir string, at wire.Position, l wire.Lineage) (err error) {
	if s.Writable() {
		return fmt.Errorf("shard %d: %w", s.opts.Shard, ErrWritable)
	}
	current := s.current()
	fs, number := s.opts.FS, current.Number+1
	engine, logName := fmt.Sprintf("engine-%d", number), fmt.Sprintf("log-%d", number)
	if err := fs.RemoveAll(s.path(engine)); err != nil {
		return err
	}
	if err := fs.RemoveAll(s.path(logName)); err != nil {
		return err
	}
	if err := fs.Rename(dir, s.path(engine)); err != nil {
		return fmt.Errorf("shard %d: moving the snapshot into place: %w", s.opts.Shard, err)
	}
	machine, err := s.opts.Open(s.env(engine))
	if err != nil {
		return errors.Join(fmt.Errorf("shard %d: opening the snapshot: %w", s.opts.Shard, err), fs.RemoveAll(s.path(engine)))
	}
	var log *backlog.Log
	named := false // the manifest on disk may name the new directories
	defer func() {
		if err == nil {
			return
		}
		err = errors.Join(err, machine.Close())
		if log != nil {
			err = errors.Join(err, log.Close())
		}
		if !named {
			err = errors.Join(err, fs.RemoveAll(s.path(engine)), fs.RemoveAll(s.path(logName)))
		}
	}()
	got, err := machine.Position()
	if err == nil && (got.Offset != at.Offset || !got.IsZero() && !l.Has(got.Generation)) {
		err = fmt.Errorf("shard %d: the snapshot is at %s, the primary said %s", s.opts.Shard, got, at)
	}
	if err != nil {
		return err
	}
	lineage := l
	o := s.backlogOptions(logName, false)
	o.Generation = func(offset uint64) wire.Generation { return lineage.At(offset).Generation }
	if log, err = backlog.Create(o, at.Offset); err != nil {
		return err
	}
	if err := s.updateManifest(func(m *manifest) {
		m.Number, m.Engine, m.Log = number, engine, logName
		m.setLineage(l)
	}); err != nil {
		// It may have been replaced all the same. Until it names the old directories for certain, the new ones stay.
		back := s.restoreManifest(number)
		named = back != nil
		return errors.Join(err, back)
	}
	s.switchTo(machine, engine, log, at, l)
	if kept := s.keep(current.Engine); kept != nil {
		s.opts.Logger.Error("the previous data could not be kept", "shard", s.opts.Shard, "error", kept)
	}
	if removed := fs.RemoveAll(s.path(current.Log)); removed != nil {
		s.opts.Logger.Error("the previous log could not be removed", "shard", s.opts.Shard, "error", removed)
	}
	return nil
}

// restoreManifest writes the manifest as it was before a change that failed. Later directories take higher numbers than
// number, whatever comes of it.
func (s *Shard) restoreManifest(number int) error {
	err := s.updateManifest(func(m *manifest) { m.Number = number })
	s.manifestMu.Lock()
	s.manifest.Number = number
	s.manifestMu.Unlock()
	return err
}

// switchTo closes the old state machine and log and takes the new ones. It runs on the loop.
func (s *Shard) switchTo(machine StateMachine, engine string, log *backlog.Log, at wire.Position, l wire.Lineage) {
	s.machineMu.Lock()
	old, oldLog := s.machine, s.Log()
	s.machine = machine
	s.group.StateMachine = machine
	s.lineage.Store(&l)
	s.log.Store(log)
	log.Publish(at.Offset)
	s.applied.Store(at.Offset)
	s.commit.Store(0)
	s.started.Store(true)
	s.engine.Store(&engine) // from here on the old one's errors are no fault, and what they were is forgotten
	s.fault.Store(nil)
	s.stalled = nil
	s.machineMu.Unlock()
	if err := errors.Join(old.Close(), oldLog.Close()); err != nil {
		s.opts.Logger.Warn("closing the previous data", "shard", s.opts.Shard, "error", err)
	}
	for _, a := range s.armed {
		a.done <- ErrPassed
	}
	s.armed = nil
	s.changed()
	s.opts.Logger.Info("switched to the snapshot", "shard", s.opts.Shard, "position", at)
}

// keep moves the replaced engine's directory to where previous data is kept, or deletes it.
func (s *Shard) keep(engine string) error {
	fs, to := s.opts.FS, s.opts.KeepPrevious
	if to == "" {
		return fs.RemoveAll(s.path(engine))
	}
	if err := errors.Join(fs.RemoveAll(to), fs.MkdirAll(fs.PathDir(to), 0o755)); err != nil {
		return err
	}
	return fs.Rename(s.path(engine), to)
}

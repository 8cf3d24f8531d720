package shard

import (
	"errors"
	"fmt"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/pagecache"
	"github.com/understudy-kv/understudy/wire"
)

// Install replaces the shard's data by the snapshot in dir, which is moved into place. The snapshot must be at the
// position at, on lineage l; that is checked before anything is given up. A crash at any instant leaves the old data or the
// new. Readers see the old data until the switch. The old state machine's directory, if it was at any position, goes to Options.KeepPrevious.
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
	n, err := s.successor(at, l)
	if err != nil {
		return err
	}
	defer n.giveUp(&err)
	nothing := s.Position().IsZero()
	if err := s.opts.FS.Rename(dir, s.path(n.engine)); err != nil {
		return fmt.Errorf("shard %d: moving the snapshot into place: %w", s.opts.Shard, err)
	}
	if err := n.open(); err != nil {
		return fmt.Errorf("shard %d: opening the snapshot: %w", s.opts.Shard, err)
	}
	if q, ok := n.machine.(Quieter); ok {
		_ = q.Quiet() // it ends by itself: what was written meanwhile, and the other shards, come first
	}
	if n.log, err = backlog.Create(n.logOptions(), at.Offset); err != nil {
		return err
	}
	old, err := n.take()
	if err != nil {
		return err
	}
	if kept := s.keep(old.Engine, nothing); kept != nil {
		s.opts.Logger.Error("the previous data could not be kept", "shard", s.opts.Shard, "error", kept)
	}
	s.opts.Logger.Info("switched to the snapshot", "shard", s.opts.Shard, "position", at)
	if dir := s.path(n.engine); pagecache.Has(s.opts.FS, dir) {
		// Its files were written past the kernel's cache. Who warms them owns nothing, and ends with the files or with the shard; Close waits for it.
		s.done.Go(func() { pagecache.Warm(s.opts.FS, dir, s.quit) })
	}
	return nil
}

// successor is data in the making, beside what is used: engine-N and log-N for the next N, of which the manifest says
// nothing. It belongs to the loop.
type successor struct {
	s       *Shard
	number  int
	engine  string
	logName string
	at      wire.Position
	lineage wire.Lineage
	settles *wire.Position // nil for data that is whole
	machine StateMachine
	log     *backlog.Log
	named   bool // the manifest on disk names it, or may
}

// successor makes room for data at the position.
func (s *Shard) successor(at wire.Position, l wire.Lineage) (*successor, error) {
	number := s.current().Number + 1
	n := &successor{s: s, number: number, engine: fmt.Sprintf("engine-%d", number), logName: fmt.Sprintf("log-%d", number), at: at, lineage: l}
	return n, n.remove()
}

func (n *successor) remove() error {
	fs := n.s.opts.FS
	return errors.Join(fs.RemoveAll(n.s.path(n.engine)), fs.RemoveAll(n.s.path(n.logName)))
}

// open opens the state machine and checks that it is where it must be.
func (n *successor) open() (err error) {
	if n.machine, err = n.s.opts.Open(n.s.env(n.engine)); err != nil {
		return err
	}
	got, err := n.machine.Position()
	if err == nil && (got.Offset != n.at.Offset || !got.IsZero() && !n.lineage.Has(got.Generation)) {
		err = fmt.Errorf("the snapshot is at %s, the primary said %s", got, n.at)
	}
	return err
}

func (n *successor) logOptions() backlog.Options {
	o := n.s.backlogOptions(n.logName, false)
	o.Generation = func(offset uint64) wire.Generation { return n.lineage.At(offset).Generation }
	return o
}

// take has the manifest name the successor, which is the switch, and returns what it named before; its engine is the
// caller's to remove.
func (n *successor) take() (old manifest, err error) {
	s := n.s
	old = s.current()
	if err := s.updateManifest(func(m *manifest) {
		m.Number, m.Engine, m.Log = n.number, n.engine, n.logName
		m.setLineage(n.lineage)
		m.setSettles(n.settles)
	}); err != nil {
		// It may have been replaced all the same. Until it names the old directories for certain, the new ones stay.
		back := s.restoreManifest(n.number)
		n.named = back != nil
		return old, errors.Join(err, back)
	}
	n.named = true
	s.switchTo(n)
	if err := s.opts.FS.RemoveAll(s.path(old.Log)); err != nil {
		s.opts.Logger.Error("the previous log could not be removed", "shard", s.opts.Shard, "error", err)
	}
	return old, nil
}

// giveUp closes and removes what was made, if *err tells that it is not used.
func (n *successor) giveUp(err *error) {
	if *err == nil {
		return
	}
	if n.machine != nil {
		*err = errors.Join(*err, n.machine.Close())
	}
	if n.log != nil {
		*err = errors.Join(*err, n.log.Close())
	}
	if !n.named {
		*err = errors.Join(*err, n.remove())
	}
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

// switchTo closes the old state machine and log and takes the successor's. It runs on the loop.
func (s *Shard) switchTo(n *successor) {
	s.machineMu.Lock()
	old, oldLog := s.machine, s.Log()
	if n.settles != nil {
		s.settles.Store(n.settles) // before anybody can see that data
	}
	s.machine = n.machine
	s.live.Store(&n.machine)
	s.group.StateMachine = n.machine
	s.lineage.Store(&n.lineage)
	s.log.Store(n.log)
	if l := s.limits.Load(); l != nil { // changed since the log was begun
		if err := n.log.SetLimits(l.keep, l.disk); err != nil {
			s.opts.Logger.Error("the new log has other limits than were asked for", "shard", s.opts.Shard, "error", err)
		}
	}
	n.log.Publish(n.at.Offset)
	s.applied.Store(n.at.Offset)
	s.commit.Store(0)
	s.started.Store(true)
	s.engine.Store(&n.engine) // from here on the old one's errors are no fault, and what they were is forgotten
	s.fault.Store(nil)
	s.stalled = nil
	s.settles.Store(n.settles)
	s.machineMu.Unlock()
	if err := errors.Join(old.Close(), oldLog.Close()); err != nil {
		s.opts.Logger.Warn("closing the previous data", "shard", s.opts.Shard, "error", err)
	}
	for _, a := range s.armed {
		a.done <- ErrPassed
	}
	s.armed = nil
	s.changed()
}

// keep moves the replaced engine's directory to where previous data is kept, or deletes it: also if there is nothing in it, which is not to take
// the place of something that is kept.
func (s *Shard) keep(engine string, nothing bool) error {
	fs, to := s.opts.FS, s.opts.KeepPrevious
	if to == "" || nothing {
		return fs.RemoveAll(s.path(engine))
	}
	if s.opts.Keeping != nil {
		s.opts.Keeping.Lock()
		defer s.opts.Keeping.Unlock()
	}
	if err := errors.Join(fs.RemoveAll(to), fs.MkdirAll(fs.PathDir(to), 0o755)); err != nil {
		return err
	}
	return fs.Rename(s.path(engine), to)
}

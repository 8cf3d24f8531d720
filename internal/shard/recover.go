package shard

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/wire"
)

// replayBytes is how much of the log one batch of recovery takes: large batches skip Pebble's skiplist.
const replayBytes = 4 << 20

// lostPower decides whether frames that others have may be missing here: see the package's comment.
func lostPower(m manifest, bootID string) bool {
	return !m.Clean && m.Weakest != FsyncAlways && m.BootID != bootID
}

// mayHaveHoles decides whether what the last run left unsynced in its log may be there in any part. Under always that is
// the last append, which nobody was told of.
func mayHaveHoles(m manifest, bootID string) bool { return !m.Clean && m.BootID != bootID }

// newHistory tells why a shard that is opened must not go on in the generation of its last run; "" if it may.
func newHistory(m manifest, o Options, lineage wire.Lineage) string {
	switch {
	case !o.Writable:
		return ""
	case len(lineage) == 0:
		return "there is none yet"
	case m.Follows:
		return "the last run followed a primary, which may go on in the old one"
	case lostPower(m, o.BootID):
		return "the machine went down with frames that may not have been synced"
	}
	return ""
}

// Open recovers the shard in o.Dir, or makes a new one there, and starts its loop.
func Open(o Options) (*Shard, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Shard{
		opts: o,
		wake: make(chan struct{}, 1),
		turn: make(chan struct{}, 1),
		quit: make(chan struct{}),
		tidy: make(chan struct{}, 1),
		trim: make(chan chan struct{}),
	}
	s.policy.Store(&o.Fsync)
	s.writable.Store(o.Writable)
	s.lineage.Store(&wire.Lineage{})
	if err := s.recover(); err != nil {
		return nil, fmt.Errorf("shard %d in %s: %w", o.Shard, o.Dir, err)
	}
	s.group.StateMachine, s.group.limit = s.machine, s.opts.GroupBytes
	machine := s.machine
	s.live.Store(&machine)
	engine := s.manifest.Engine
	s.engine.Store(&engine)
	// The loop takes the turn for whatever callers do not execute themselves (turn.go). It is ended by quit, once its queues
	// are empty; Close waits for it.
	s.done.Go(s.loop)
	// The housekeeper trims the log and has the state machine flushed. It is ended by quit; Close waits for it.
	s.done.Go(s.housekeep)
	// The syncer syncs the log once a second. It is ended by quit; Close waits for it.
	s.done.Go(s.keepSynced)
	return s, nil
}

func (s *Shard) recover() (err error) {
	o := s.opts
	if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	m, found, err := readManifest(o.FS, o.Dir)
	if err != nil {
		return err
	}
	if !found {
		return s.create()
	}
	if m.Shard != o.Shard {
		return fmt.Errorf("this directory belongs to shard %d: it was moved or copied; put it back in its place", m.Shard)
	}
	lineage, err := m.lineage()
	if err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	settles, err := m.settles()
	if err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	s.manifest = m
	s.lineage.Store(&lineage)
	if err := s.sweep(); err != nil {
		return err
	}
	power := lostPower(m, o.BootID)
	log, err := backlog.Open(s.backlogOptions(m.Log, mayHaveHoles(m, o.BootID)))
	if err != nil {
		return err
	}
	s.log.Store(log)
	defer func() {
		if err != nil {
			if s.machine != nil {
				err = errors.Join(err, s.machine.Close())
			}
			err = errors.Join(err, s.Log().Close())
		}
	}()
	if s.machine, err = o.Open(s.env(m.Engine)); err != nil {
		return err
	}
	next, err := s.replay(power)
	if err != nil {
		return err
	}
	// What the last run left unsynced must not be judged by this run's policy.
	if err := s.Log().Sync(); err != nil {
		return err
	}
	s.Log().Publish(next)
	s.applied.Store(next)
	s.started.Store(len(lineage) > 0)
	if settles != nil && next >= settles.Offset {
		settles = nil // and the log, which has been synced, will always bring the data there
	}
	if settles != nil && o.Writable {
		return fmt.Errorf("%w: its data is at %d and whole from %s on; start it as a replica of a node that has that position, or promote another node", ErrUnsettled, next, settles)
	}
	s.settles.Store(settles)
	if why := newHistory(m, o, lineage); why != "" {
		lineage = lineage.Begin(o.NewGeneration(), next)
		o.Logger.Warn("new generation: "+why,
			"shard", o.Shard, "offset", next, "generation", lineage.Current(), "boot_id", o.BootID, "last_boot_id", m.BootID)
	}
	if err := s.updateManifest(func(m *manifest) {
		m.setLineage(lineage)
		m.setSettles(settles)
		m.BootID, m.Clean, m.Weakest, m.Follows = o.BootID, false, o.Fsync, !o.Writable
	}); err != nil {
		return err
	}
	s.lineage.Store(&lineage)
	s.started.Store(len(lineage) > 0)
	return nil
}

// create makes an empty shard. The manifest is written last: before it, there is no shard.
func (s *Shard) create() (err error) {
	o := s.opts
	s.manifest = manifest{Format: manifestFormat, Shard: o.Shard, Number: 1, Engine: "engine-1", Log: "log-1",
		BootID: o.BootID, Weakest: o.Fsync, Follows: !o.Writable}
	lineage := wire.Lineage{}
	if o.Writable {
		lineage = lineage.Begin(o.NewGeneration(), 0)
	}
	if err := s.sweepAll(); err != nil {
		return err
	}
	s.lineage.Store(&lineage)
	log, err := backlog.Create(s.backlogOptions(s.manifest.Log, false), 0)
	if err != nil {
		return err
	}
	s.log.Store(log)
	s.machine, err = o.Open(s.env(s.manifest.Engine))
	if err == nil {
		err = s.updateManifest(func(m *manifest) { m.setLineage(lineage) })
		if err != nil {
			err = errors.Join(err, s.machine.Close())
		}
	}
	if err != nil {
		return errors.Join(err, log.Close())
	}
	s.started.Store(len(lineage) > 0)
	// The directory's own name must outlive a power loss, too.
	return safefile.SyncDir(o.FS, o.FS.PathDir(o.Dir))
}

// replay brings the state machine up to the log's end and returns the offset that was reached.
func (s *Shard) replay(power bool) (uint64, error) {
	at, err := s.machine.Position()
	if err != nil {
		return 0, err
	}
	log := s.Log()
	bounds := log.Bounds()
	if !at.IsZero() && !s.Lineage().Has(at.Generation) {
		return 0, fmt.Errorf("the data is at %s, a generation that %s does not list: the directory was mixed from two; restore it from a backup, or empty it and let it sync again", at, manifestName)
	}
	switch {
	case at.Offset < bounds.Oldest:
		return 0, fmt.Errorf("the data is at offset %d and the log begins at %d: log files are missing; restore them, or empty the directory and let it sync again", at.Offset, bounds.Oldest)
	case at.Offset > bounds.Next && !power:
		return 0, fmt.Errorf("the data is at offset %d and the log ends at %d: log files are missing or were cut; restore them, or empty the directory and let it sync again", at.Offset, bounds.Next)
	case at.Offset > bounds.Next:
		// The power went with the log's tail unsynced and the data ahead of it. Frames cannot be had back from the data, so
		// the log begins again here; who is behind will need a full sync.
		return at.Offset, s.replaceLog(at.Offset)
	}
	begun := time.Now()
	var batch wire.Batch
	var addr int64 // of the batch in the log
	next := at.Offset
	apply := func() error {
		if len(batch.Frames) == 0 {
			return nil
		}
		batch.At = s.Lineage().Reached(next)
		err := applyLogged(s.machine, batch, log, addr)
		batch.Frames = batch.Frames[:0]
		return err
	}
	err = log.ReplayAt(at.Offset, func(f wire.Frame, frameAddr int64) error {
		if err := f.Check(); err != nil {
			return fmt.Errorf("frame at offset %d: %w", f.First, err)
		}
		if frameAddr != addr+int64(len(batch.Frames)) { // another segment
			if err := apply(); err != nil {
				return err
			}
		}
		if len(batch.Frames) == 0 {
			batch.First, addr = f.First, frameAddr
		}
		batch.Frames = append(batch.Frames, f.Raw...)
		next = f.Next()
		s.commit.Store(f.Commit)
		if len(batch.Frames) >= replayBytes {
			return apply()
		}
		return nil
	})
	if err == nil {
		err = apply()
	}
	if err != nil {
		return 0, fmt.Errorf("replaying the log from offset %d: %w", at.Offset, err)
	}
	if next != at.Offset {
		s.opts.Logger.Info("replayed the log", "shard", s.opts.Shard, "from", at.Offset, "next", next, "took", time.Since(begun))
	}
	return next, nil
}

// replaceLog begins a new log at the offset, in a directory of its own, and names it in the manifest.
func (s *Shard) replaceLog(first uint64) error {
	number := s.manifest.Number + 1
	name := fmt.Sprintf("log-%d", number)
	log, err := backlog.Create(s.backlogOptions(name, false), first)
	if err != nil {
		return err
	}
	old, oldName := s.Log(), s.manifest.Log
	if err := s.updateManifest(func(m *manifest) { m.Number, m.Log = number, name }); err != nil {
		return errors.Join(err, log.Close())
	}
	s.log.Store(log)
	s.opts.Logger.Warn("the log begins again: its unsynced tail was lost and the data is ahead of it", "shard", s.opts.Shard, "offset", first)
	return errors.Join(old.Close(), s.opts.FS.RemoveAll(s.path(oldName)))
}

// sweep removes what an interrupted switch left behind: engine-N and log-N that the manifest does not name.
func (s *Shard) sweep() error { return s.sweepBut(s.manifest.Engine, s.manifest.Log) }

// sweepAll removes every engine-N and log-N: without a manifest they belong to a creation that was interrupted.
func (s *Shard) sweepAll() error { return s.sweepBut("", "") }

func (s *Shard) sweepBut(engine, log string) error {
	names, err := s.opts.FS.List(s.opts.Dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		ours := strings.HasPrefix(n, "engine-") || strings.HasPrefix(n, "log-")
		if !ours || n == engine || n == log {
			continue
		}
		s.opts.Logger.Info("removing what an interrupted switch left", "shard", s.opts.Shard, "directory", n)
		if err := s.opts.FS.RemoveAll(s.path(n)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Shard) path(name string) string { return s.opts.FS.PathJoin(s.opts.Dir, name) }

func (s *Shard) backlogOptions(name string, power bool) backlog.Options {
	o := s.opts
	keep, disk := s.backlogLimits()
	return backlog.Options{
		FS: o.FS, Dir: s.path(name), Memory: o.BacklogMemory, Keep: keep, Disk: disk,
		SegmentBytes: o.SegmentBytes, Shard: uint32(o.Shard), PowerLost: power, Logger: o.Logger,
		Generation: func(offset uint64) wire.Generation { return s.Lineage().At(offset).Generation },
	}
}

// env is what the state machine in the named directory gets.
func (s *Shard) env(name string) Env {
	return Env{
		Shard: s.opts.Shard, Dir: s.path(name),
		BeforeFlush: func() error {
			if log := s.Log(); log != nil {
				return log.Sync()
			}
			return nil
		},
		OnError: func(err error) {
			// A state machine that has been replaced may still fail while it closes; that is no fault of the new data.
			if used := s.engine.Load(); used != nil && *used != name {
				s.opts.Logger.Warn("a state machine that is not in use failed", "shard", s.opts.Shard, "directory", name, "error", err)
				return
			}
			s.fence(fmt.Errorf("storage: %w", err), false)
		},
	}
}

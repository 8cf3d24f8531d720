package shard

import (
	"errors"
	"fmt"

	"github.com/understudy-kv/understudy/wire"
)

// errNoHistory is returned by Promote for a shard that was never filled.
var errNoHistory = errors.New("the shard has no data yet")

// Writable reports whether the shard takes commands. Otherwise it follows a primary.
func (s *Shard) Writable() bool { return s.writable.Load() }

// Promote begins a generation at the applied offset, has the shard take commands and returns the position. That is
// durable on return: a crash before it leaves a shard that follows, one behind it the new generation. What was ingested
// before is applied; an ingest that comes later fails with ErrWritable. On a shard that takes commands it does nothing.
func (s *Shard) Promote() (wire.Position, error) {
	var at wire.Position
	err := s.do(func() error {
		if s.Writable() {
			at = s.Position()
			return nil
		}
		if !s.started.Load() {
			return errNoHistory
		}
		if !s.Settled() {
			return fmt.Errorf("shard %d: %w", s.opts.Shard, ErrUnsettled)
		}
		if !s.applyStalled() || s.Err() != nil {
			return fmt.Errorf("shard %d: %w", s.opts.Shard, s.Err())
		}
		// What the new generation builds on must not be lost behind its back: its first offset is on record from here on.
		if err := s.Log().Sync(); err != nil {
			err = fmt.Errorf("shard %d: syncing the log: %w", s.opts.Shard, err)
			s.fence(err, false)
			return err
		}
		applied := s.applied.Load()
		l := s.Lineage().Begin(s.opts.NewGeneration(), applied)
		if err := s.updateManifest(func(m *manifest) {
			m.setLineage(l)
			m.Follows = false
		}); err != nil {
			return err
		}
		s.lineage.Store(&l) // before the first frame of it can be published
		s.writable.Store(true)
		at = l.At(applied)
		return nil
	})
	if err == nil {
		s.changed()
	}
	return at, err
}

// Demote has the shard follow a primary: jobs that were submitted before are done, mutations of later ones are refused
// with ErrFollows. That is durable on return. On a shard that follows it does nothing.
func (s *Shard) Demote() error {
	// A group may leave jobs for the next one, so the queue is emptied by a job of its own.
	last := &barrier{done: make(chan struct{})}
	if err := s.Submit(last); err != nil {
		return err
	}
	<-last.done
	err := s.do(func() error {
		if !s.Writable() {
			return nil
		}
		if err := s.updateManifest(func(m *manifest) { m.Follows = true }); err != nil {
			return err
		}
		s.writable.Store(false)
		return nil
	})
	if err == nil {
		s.changed()
	}
	return err
}

// barrier is a job that tells when everything submitted before it has been committed.
type barrier struct{ done chan struct{} }

func (b *barrier) Run(*Group) bool         { return true }
func (b *barrier) Committed(uint64, error) { close(b.done) }

package shard

import (
	"errors"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/backlog"
)

// housekeepEvery is the period of the everysec policy and of trimming.
const housekeepEvery = time.Second

// housekeep syncs, flushes and trims in the background, so that the loop need not.
func (s *Shard) housekeep() {
	ticker := time.NewTicker(housekeepEvery)
	defer ticker.Stop()
	before := uint64(0) // where the log ended a tick ago
	for {
		var waiting chan struct{}
		limit := s.recoveryLimit()
		select {
		case <-ticker.C:
			s.syncByPolicy()
			next := s.Log().Next()
			if next == before {
				limit = min(limit, s.recoveryLimitAtRest())
			}
			before = next
		case <-s.tidy:
		case waiting = <-s.trim:
		case <-s.quit:
			return
		}
		if err := s.tidyUp(limit); err != nil && !errors.Is(err, ErrClosed) {
			s.opts.Logger.Warn("trimming the log", "shard", s.opts.Shard, "error", err)
		}
		if waiting != nil {
			close(waiting)
		}
	}
}

// keepWithinCap has the housekeeper look at a log that has grown. One that is past its cap grows no further before that is
// done: what recovery needs is never deleted, so writing faster than the state machine can flush would fill the disk.
func (s *Shard) keepWithinCap(log *backlog.Log) {
	if !log.PastCap() {
		poke(s.tidy)
		return
	}
	waiting := make(chan struct{})
	select {
	case s.trim <- waiting:
	case <-s.quit:
		return
	}
	select {
	case <-waiting: // with or without an effect: a flush that fails must not stop the loop
	case <-s.quit:
	}
}

func (s *Shard) syncByPolicy() {
	log := s.Log()
	if s.Fsync() != FsyncEverySec || log.Durable() >= log.Next() {
		return
	}
	err := log.Sync()
	if err == nil || errors.Is(err, backlog.ErrClosed) {
		return
	}
	if s.Log() == log {
		s.fence(fmt.Errorf("shard %d: syncing the log: %w", s.opts.Shard, err), false)
	}
}

// Trim has the state machine flushed when recovery would need more of the log than it may, and deletes the segments that
// neither recovery, nor the keep, nor a slot within the cap holds.
func (s *Shard) Trim() error { return s.tidyUp(s.recoveryLimit()) }

func (s *Shard) tidyUp(limit int64) error {
	return s.use(func(m StateMachine) error {
		if m, ok := m.(interface{ Started() }); ok {
			m.Started()
		}
		log := s.Log()
		durable, err := m.Durable()
		if err != nil {
			return err
		}
		if log.BytesFrom(durable) > limit {
			if err := m.Flush(); err != nil {
				return err
			}
			if durable, err = m.Durable(); err != nil {
				return err
			}
		}
		// A primary's slots are known once the slowest of its shards is open; before that they may need everything. A
		// replica has none.
		slots, any := uint64(0), s.opts.Writable
		if f := s.retention.Load(); f != nil {
			slots, any = (*f)()
		}
		log.Trim(durable, slots, any)
		return nil
	})
}

// recoveryLimit is how much log recovery may have to replay before a flush is asked for: twice what is kept anyway, within
// half of the cap. The less often there is a flush, the more of what it would have written has been overwritten before.
func (s *Shard) recoveryLimit() int64 {
	keep, disk := s.backlogBounds()
	return max(min(2*keep, disk/2), 1<<20)
}

// recoveryLimitAtRest is the same while nothing is written: half of what is kept anyway, so that recovery holds no segment of
// its own.
func (s *Shard) recoveryLimitAtRest() int64 {
	keep, _ := s.backlogBounds()
	return max(keep/2, 1<<20)
}

// backlogBounds are the backlog's limits, with its defaults.
func (s *Shard) backlogBounds() (keep, disk int64) {
	if keep, disk = s.backlogLimits(); keep == 0 {
		keep = backlog.DefaultKeep
	}
	if disk == 0 {
		disk = backlog.DefaultDisk
	}
	return keep, disk
}

package shard

import (
	"errors"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/backlog"
)

// housekeepEvery is the period of the everysec policy and of trimming.
const housekeepEvery = time.Second

// keepSynced syncs the log by the everysec policy. It waits for nothing else: a flush takes longer than that by far.
func (s *Shard) keepSynced() {
	ticker := time.NewTicker(housekeepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.syncByPolicy()
		case <-s.quit:
			return
		}
	}
}

// housekeep flushes and trims in the background, so that the loop need not.
func (s *Shard) housekeep() {
	ticker := time.NewTicker(housekeepEvery)
	defer ticker.Stop()
	before := uint64(0) // where the log ended a tick ago
	for {
		var waiting chan struct{}
		limit, patient := s.recoveryLimit(), true
		select {
		case <-ticker.C:
			next := s.Log().Next()
			if next == before {
				limit, patient = min(limit, s.recoveryLimitAtRest()), false
			}
			before = next
		case <-s.tidy:
		case waiting = <-s.trim:
		case <-s.quit:
			return
		}
		if err := s.tidyUp(limit, patient); err != nil && !errors.Is(err, ErrClosed) {
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
	defer s.hurry()()
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

// hurry has the state machine's background work take all the processors that it wants until release is called.
func (s *Shard) hurry() (release func()) {
	if m := s.live.Load(); m != nil {
		if h, ok := (*m).(Hurrier); ok {
			return h.Hurry()
		}
	}
	return func() {}
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
func (s *Shard) Trim() error { return s.tidyUp(s.recoveryLimit(), true) }

func (s *Shard) tidyUp(limit int64, patient bool) error {
	return s.use(func(m StateMachine) error {
		if m, ok := m.(interface{ Started() }); ok {
			m.Started()
		}
		log := s.Log()
		durable, err := m.Durable()
		if err != nil {
			return err
		}
		leaver, leaves := m.(Leaver)
		wait := unflushed{bytes: log.BytesFrom(durable), mutations: log.Next() - min(durable, log.Next())}
		if patient && leaves {
			_, wait.disk = s.backlogBounds()
			wait.live, wait.overwritten = leaver.LeftInLog()
		}
		if wait.due(limit) {
			if err := s.flushPaced(m, wait.bytes); err != nil {
				return err
			}
			if durable, err = m.Durable(); err != nil {
				return err
			}
		}
		needed := durable
		if leaves {
			n, err := leaver.NeedsLog()
			if err != nil {
				return err
			}
			needed = min(needed, n)
		}
		// A primary's slots are known once the slowest of its shards is open; before that they may need everything. A
		// replica has none.
		slots, any := uint64(0), s.opts.Writable
		if f := s.retention.Load(); f != nil {
			slots, any = (*f)()
		}
		log.Trim(needed, slots, any)
		return nil
	})
}

// flushPaced flushes m, of which the log has so many bytes, and has writers keep its pace meanwhile.
func (s *Shard) flushPaced(m StateMachine, bytes int64) error {
	_, disk := s.backlogBounds()
	if p := s.newPace(m, disk-bytes); p != nil {
		s.pace.Store(p)
		defer p.end()
		defer s.pace.Store(nil)
	}
	return m.Flush()
}

// recoveryLimit is how much log recovery may have to replay before a flush is asked for: twice what is kept anyway, within
// half of the cap. The less often there is a flush, the more of what it would have written has been overwritten before.
func (s *Shard) recoveryLimit() int64 {
	keep, disk := s.backlogBounds()
	return max(min(2*keep, disk/2), 1<<20)
}

// unflushed is what recovery would have to replay.
type unflushed struct {
	bytes     int64
	mutations uint64
	disk      int64 // the log's cap, in bytes

	live, overwritten int64 // of bytes, where the state machine leaves values in the log; else 0
}

// smallMutation is the size in bytes of a mutation of which recovery replays as many as the limit's bytes hold, and no more:
// it takes its time by their number.
const smallMutation = 100

// due decides whether it is time for a flush. There is a limit to what recovery may replay.
//
// Values that were left in the log are written once more by a flush, unless they are overwritten before: so it waits for longer
// until three quarters of them were, if neither the number of mutations nor the cap forbid it. The log grows
// while a flush runs, so the last quarter of the cap is for that.
//
// Where that will not come to pass, since there is too much that is written over, or nothing is, a flush comes early: nothing is gained by
// waiting, and a full sync waits for what has not been flushed. Of b bytes written at random over n, about b²/2n are overwritten
// as long as b is small.
func (u unflushed) due(limit int64) bool {
	if u.live == 0 {
		return u.bytes > limit
	}
	room := u.disk / 4 * 3
	written := float64(u.live + u.overwritten)
	switch {
	case written*written > 2*float64(u.overwritten)*float64(room): // over more than the room
		return u.bytes > limit/4
	case u.mutations > uint64(limit/smallMutation):
		return u.bytes > limit
	}
	return u.bytes > max(limit, min(4*u.live, room))
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

package backlog

import "errors"

// extent is what decideTrim needs to know of a segment.
type extent struct {
	next  uint64
	bytes int64
}

// retention is the rule of what is kept, and what it depends on.
type retention struct {
	keep, disk int64
	needed     uint64 // recovery, and whoever else cannot do without, needs everything from here on
	slots      uint64 // the lowest offset that a slot needs, if hasSlots
	hasSlots   bool
}

// decideTrim says how many of the oldest segments go. A segment goes if recovery does not need it, and either the cap
// is overrun, or keep is satisfied without it and no slot needs it. The cap beats the slots; nothing beats recovery.
// The last segment, where frames are appended, always stays.
func decideTrim(segments []extent, r retention) int {
	var total int64
	for _, s := range segments {
		total += s.bytes
	}
	n := 0
	for n < len(segments)-1 {
		s := segments[n]
		free := total-s.bytes >= r.keep && (!r.hasSlots || s.next <= r.slots)
		if s.next > r.needed || !free && total <= r.disk {
			break
		}
		total -= s.bytes
		n++
	}
	return n
}

// Trim applies the retention rule: recovery is the offset from which the engine must replay after a crash, slots the
// lowest offset that a replica's slot needs, if hasSlots. It removes files, and syncs the directory, so call it from a
// goroutine that may wait for a disk. A file that cannot be removed is tried again by the next Trim.
func (l *Log) Trim(recovery uint64, slots uint64, hasSlots bool) {
	t := &l.trimming
	t.Lock()
	defer t.Unlock()
	if errors.Is(l.failed(), ErrClosed) {
		return
	}
	l.mu.Lock()
	// The log goes on growing until the next Trim has removed something, so the cap is enforced a segment early; but never
	// at the expense of what is kept in any case.
	r := retention{keep: l.mu.keep, disk: max(l.mu.disk-l.o.SegmentBytes, l.mu.keep), slots: slots, hasSlots: hasSlots}
	r.needed = min(recovery, l.published.Load())
	segments := make([]extent, len(l.mu.segments))
	for i, s := range l.mu.segments {
		segments[i] = extent{s.next, s.size}
	}
	n := decideTrim(segments, r)
	for n > 0 && l.mu.segments[n-1].next >= l.durable.Load() {
		n-- // the segment that would then be the oldest was never synced: a power loss could leave no log at all
	}
	for _, s := range l.mu.segments[:n] {
		s.gone = true
		l.mu.garbage += s.size
		t.garbage = append(t.garbage, s)
	}
	if n > 0 {
		l.mu.segments = append(l.mu.segments[:0:0], l.mu.segments[n:]...)
		l.mu.memory.dropBeforeLocked(l.oldestLocked())
	}
	l.mu.Unlock()
	l.sweep()
}

// sweep removes the files of trimmed segments, oldest first, each durably before the next: a hole in the sequence of
// files would be taken for corruption.
func (l *Log) sweep() {
	t := &l.trimming
	for len(t.garbage) > 0 {
		s := t.garbage[0]
		l.mu.Lock()
		f := s.idleLocked() // if a read is in progress, it closes the file when it ends
		l.mu.Unlock()
		l.discard(f)
		err := removeIfThere(l.o.FS, s.path)
		if err == nil {
			err = l.syncDir()
		}
		if err != nil {
			l.o.Logger.Warn("removing a trimmed segment failed, the next trim tries again", "file", s.path, "error", err)
			return
		}
		l.mu.Lock()
		l.mu.garbage -= s.size
		l.mu.Unlock()
		t.garbage[0] = nil
		t.garbage = t.garbage[1:]
	}
}

package backlog

import "fmt"

// checkLocked panics on a broken invariant, in builds with the tag understudy_check.
func (l *Log) checkLocked() {
	if !checks {
		return
	}
	if err := l.check(); err != nil {
		panic(err)
	}
}

// check reports the first invariant of Log that does not hold. mu must be held, and no Append may be half done.
func (l *Log) check() error {
	next, durable, published := l.next.Load(), l.durable.Load(), l.published.Load()
	segments, m := l.mu.segments, &l.mu.memory
	broken := func(n int, format string, args ...any) error {
		return fmt.Errorf("backlog: invariant %d broken: %s", n, fmt.Sprintf(format, args...))
	}
	for i, s := range segments {
		last := i == len(segments)-1
		switch {
		case s.gone && l.failed() == nil:
			return broken(1, "segment %d was trimmed and is still there", s.first)
		case !last && (s.next != segments[i+1].first || s.next == s.first || !s.sealed):
			return broken(1, "segment [%d, %d) sealed=%t is followed by %d", s.first, s.next, s.sealed, segments[i+1].first)
		case last && (s.next != next || s.sealed):
			return broken(1, "the last segment ends at %d, the log at %d", s.next, next)
		}
	}
	if oldest := segments[0].first; oldest > published || published > next || durable > next {
		return broken(2, "oldest %d, published %d, next %d, durable %d", oldest, published, next, durable)
	}
	for i, s := range m.window {
		switch {
		case !s.live || s.refs < 0:
			return broken(4, "slab %d live=%t has %d readers", s.first, s.live, s.refs)
		case i == 0 && s.first < segments[0].first:
			return broken(3, "memory begins at %d, before the disk's %d", s.first, segments[0].first)
		case i < len(m.window)-1 && s.next != m.window[i+1].first:
			return broken(3, "slab [%d, %d) is followed by %d", s.first, s.next, m.window[i+1].first)
		case i == len(m.window)-1 && s.next != next:
			return broken(3, "memory ends at %d, the log at %d", s.next, next)
		}
	}
	if m.made > m.limit || len(m.window)+len(m.free) > m.made {
		return broken(4, "%d slabs made, at most %d; %d in the window, %d free", m.made, m.limit, len(m.window), len(m.free))
	}
	for _, s := range m.free {
		if s.live || s.refs != 0 {
			return broken(4, "a free slab has live=%t and %d readers", s.live, s.refs)
		}
	}
	for _, s := range segments {
		if s.next <= durable && s.next > s.first && s.dirty && s.sealed {
			return broken(5, "segment [%d, %d) is dirty, durable is %d", s.first, s.next, durable)
		}
	}
	return nil
}

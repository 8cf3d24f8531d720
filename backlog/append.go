package backlog

import (
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// Append adds whole mutations frames that cover [first, next), with first at Next. The caller has checked them
// ([wire.ParseFrame], [wire.Frame.Check]); Append looks at their headers only. They go to the file in one write and
// into memory in one copy, and readers see them after Publish. When Append returns, a killed process loses none of
// them; Sync makes them outlive the machine.
//
// After an error the log is as it was before the call, and the call can be tried again (errors.Is(err, syscall.ENOSPC)
// tells a full disk), unless the error is ErrBroken, ErrClosed or ErrAppend.
func (l *Log) Append(frames []byte, first, next uint64) error {
	a := &l.appending
	a.Lock()
	defer a.Unlock()
	if err := l.failed(); err != nil {
		return err
	}
	if err := l.checkFrames(frames, first, next); err != nil {
		return err
	}
	if a.active.bytes() > 0 && (a.mustRoll || a.active.size+int64(len(frames)) > l.o.SegmentBytes) {
		if err := l.roll(); err != nil {
			return fmt.Errorf("backlog: beginning a segment at offset %d: %w", first, err)
		}
	}
	s := a.active
	if _, err := s.file.WriteAt(frames, s.size); err != nil {
		if cut := cutBack(s.file, s.size); cut != nil {
			return l.fail("undoing a failed append", fmt.Errorf("%w, after %w", cut, err))
		}
		return fmt.Errorf("backlog: appending %d bytes to %s: %w", len(frames), s.path, err)
	}

	size, index := s.size, s.index
	for rest := frames; len(rest) > 0; {
		h, _ := wire.ParseHeader(rest)
		index = noteMark(index, h.First, size)
		l.keep(rest[:h.Size()], h.First, h.Next())
		size += int64(h.Size())
		rest = rest[h.Size():]
	}
	l.mu.Lock()
	s.size, s.index, s.next, s.dirty = size, index, next, true
	l.next.Store(next)
	l.checkLocked()
	l.mu.Unlock()
	return nil
}

// checkFrames reports how frames are not the next ones.
func (l *Log) checkFrames(frames []byte, first, next uint64) error {
	if want := l.next.Load(); first != want || next <= first {
		return fmt.Errorf("%w: [%d, %d), the log ends at %d", ErrAppend, first, next, want)
	}
	at := first
	for rest := frames; len(rest) > 0; {
		h, err := wire.ParseHeader(rest)
		if err != nil {
			return fmt.Errorf("%w: at offset %d: %w", ErrAppend, at, err)
		}
		if h.Kind != wire.KindMutations || h.First != at || h.Size() > len(rest) {
			return fmt.Errorf("%w: a %s frame from offset %d of %d bytes, want mutations from %d in %d bytes", ErrAppend, h.Kind, h.First, h.Size(), at, len(rest))
		}
		at, rest = h.Next(), rest[h.Size():]
	}
	if at != next {
		return fmt.Errorf("%w: the frames end at offset %d, the caller says %d", ErrAppend, at, next)
	}
	return nil
}

// roll begins a new segment at Next. It waits for no sync: the old segment stays open and dirty until the next Sync.
func (l *Log) roll() error {
	a := &l.appending
	a.mustRoll = true
	s, err := l.createSegment(l.next.Load())
	if err != nil {
		return err
	}
	old := a.active
	s.base = old.end()
	a.active, a.mustRoll = s, false
	l.mu.Lock()
	old.sealed = true
	l.mu.segments = append(l.mu.segments, s)
	l.mu.dirDirty = true
	f := old.idleLocked()
	l.mu.Unlock()
	l.discard(f)
	return nil
}

// cutBack makes the file end at size: everything behind it is cut off, or, where the file system cannot cut,
// overwritten with zeros, which no frame begins with and recovery reads as the end. The cut is synced, since a frame
// that is written over it must never be followed by what was cut, not even after a power loss.
func cutBack(f vfs.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() <= size {
		return nil
	}
	if fd := f.Fd(); fd != vfs.InvalidFd {
		err = syscall.Ftruncate(int(fd), size)
	} else {
		err = zeroFrom(f, size, info.Size())
	}
	if err != nil {
		return err
	}
	return f.SyncData()
}

func zeroFrom(f vfs.File, from, to int64) error {
	zeros := make([]byte, min(to-from, 64<<10))
	for from < to {
		n := min(to-from, int64(len(zeros)))
		if _, err := f.WriteAt(zeros[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

package backlog

import (
	"errors"
	"fmt"

	"github.com/understudy-kv/understudy/wire"
)

// Replay calls f with every frame from the boundary offset from up to Published, in order, read from the disk and verified.
// The frame is valid during the call only. It stops at f's first error and returns it. Besides, it returns ErrEvicted,
// ErrFuture, ErrMisaligned or a [*CorruptError].
func (l *Log) Replay(from uint64, f func(wire.Frame) error) error {
	return l.ReplayAt(from, func(frame wire.Frame, _ int64) error { return f(frame) })
}

// ReplayAt is Replay, and tells the address of each frame, for [Log.ReadAt].
func (l *Log) ReplayAt(from uint64, f func(frame wire.Frame, addr int64) error) error {
	end := l.published.Load()
	var buf []byte
	for from < end {
		s, pos, err := l.locate(from)
		if err != nil {
			return err
		}
		if from, buf, err = l.replaySegment(s, pos, from, end, buf, f); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heldLocked(from)
}

// replaySegment replays one segment from pos and returns where the next one begins. The buffer grows to the largest
// frame and is handed on.
func (l *Log) replaySegment(s *segment, pos int64, from, end uint64, buf []byte, f func(wire.Frame, int64) error) (uint64, []byte, error) {
	file, err := l.enter(s)
	if err != nil {
		return from, buf, err
	}
	defer l.leave(s)
	l.mu.Lock()
	size := s.size
	l.mu.Unlock()
	for b := buf[:0]; from < end && pos < size; {
		frame, err := wire.ParseFrame(b)
		if errors.Is(err, wire.ErrShort) {
			want := scanChunk
			if h, err := wire.ParseHeader(b); err == nil {
				want = max(want, h.Size())
			}
			want = int(min(int64(want), size-pos))
			if want <= len(b) {
				return from, buf, damaged(s.path, pos, from, wire.Header{}, fmt.Errorf("a frame runs past the end of what was appended"))
			}
			if want > cap(buf) {
				buf = make([]byte, 0, want)
			}
			b = buf[:want]
			if err := readFull(file, s.path, b, pos, from); err != nil {
				return from, buf, err
			}
			continue
		}
		if err != nil || frame.First != from || frame.Kind != wire.KindMutations {
			return from, buf, damaged(s.path, pos, from, frame.Header, err)
		}
		if err := f(frame, s.base+pos); err != nil {
			return from, buf, err
		}
		from, pos, b = frame.Next(), pos+int64(len(frame.Raw)), b[len(frame.Raw):]
	}
	return from, buf, nil
}

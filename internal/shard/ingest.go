package shard

import (
	"errors"
	"fmt"
	"time"

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
	if done, err := s.TryIngest(frames, first, next); done {
		return err
	}
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

// TryIngest is Ingest on the caller's goroutine, if the shard has nothing else to do, ingests are not held up, and the disk has kept up
// of late. Otherwise it does nothing and returns false.
func (s *Shard) TryIngest(frames []byte, first, next uint64) (done bool, err error) {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return true, ErrClosed
	}
	if len(s.mu.jobs) > 0 || s.pausedLocked() || s.isSlow() || !s.takeFreeTurnLocked() {
		s.mu.Unlock()
		return false, nil
	}
	s.mu.Unlock()
	begun := s.beginCommit()
	err = s.ingestAll(&ingest{frames: frames, first: first, next: next})
	s.noteCommit(begun)
	s.endTurn()
	return true, err
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

func (s *Shard) pausedLocked() bool { return !s.mu.pause.IsZero() && time.Now().Before(s.mu.pause) }

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
		b := wire.Batch{Frames: rest[:piece], First: first, At: s.Lineage().Reached(next)}
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

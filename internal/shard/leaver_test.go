package shard_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// leaver is a state machine that looks its batches up in the log, and says that it leaves so much there.
type leaver struct {
	shard.StateMachine
	t       *testing.T
	applied *atomic.Int64 // bytes that were found in the log
	flushes *atomic.Int64
	needs   *atomic.Uint64
	left    *atomic.Int64 // of a thousand bytes that were applied, how many were not overwritten
	lazy    bool          // Flush does nothing
}

func (m leaver) ApplyLogged(b wire.Batch, log io.ReaderAt, addr int64) error {
	got := make([]byte, len(b.Frames))
	if _, err := log.ReadAt(got, addr); err != nil || !bytes.Equal(got, b.Frames) {
		m.t.Errorf("%d bytes of frames from offset %d on are not at address %d (%v)", len(got), b.First, addr, err)
	}
	if err := m.StateMachine.Apply(b); err != nil {
		return err
	}
	m.applied.Add(int64(len(got)))
	return nil
}

func (m leaver) Flush() error {
	if m.flushes.Add(1); m.lazy {
		return nil
	}
	return m.StateMachine.Flush()
}

func (m leaver) NeedsLog() (uint64, error) { return m.needs.Load(), nil }
func (m leaver) LeftInLog() (live, overwritten int64) {
	live = m.applied.Load() * m.left.Load() / 1000
	return live, m.applied.Load() - live
}

func leaving(t *testing.T, o *shard.Options, lazy bool) leaver {
	m := leaver{t: t, lazy: lazy, applied: new(atomic.Int64), flushes: new(atomic.Int64), needs: new(atomic.Uint64), left: new(atomic.Int64)}
	m.needs.Store(1 << 60)
	inner := o.Open
	o.Open = func(e shard.Env) (shard.StateMachine, error) {
		var err error
		m := m
		m.StateMachine, err = inner(e)
		return m, err
	}
	return m
}

// A state machine that leaves values in the log is told where its batches lie: those of commands, those that a primary sent, those
// that a restart replays over several segments, and one that found no room at first.
func TestBatchesLieInTheLog(t *testing.T) {
	fs := vfs.NewMem()
	full := new(atomic.Bool)
	o := options(fs)
	o.SegmentBytes = 4 << 10
	inner := factory(fs, new(atomic.Bool))
	o.Open = func(e shard.Env) (shard.StateMachine, error) {
		m, err := inner(e)
		return stalling{m, full}, err
	}
	m := leaving(t, &o, true)
	s := open(t, o)
	for i := range 40 {
		mustWrite(t, s, fmt.Sprint("k", i), strings.Repeat("v", 50*i))
		if i == 20 {
			full.Store(true)
			if _, err := write(t, s, "stalled", "v"); err == nil {
				t.Fatal("a write that found no room was taken")
			}
			full.Store(false)
			eventuallyTakesWrites(t, s)
		}
	}
	logged := m.applied.Load()
	if logged < 40*39/2*50 {
		t.Fatalf("%d bytes were found in the log", logged)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	m.applied.Store(0)
	s = open(t, o)
	if got := m.applied.Load(); got != logged {
		t.Fatalf("%d bytes were replayed from the log, %d had been appended", got, logged)
	}
	mustWrite(t, s, "more", "v")
}

// What the state machine still reads in the log is not trimmed, though it is durable.
func TestTrimLeavesWhatIsRead(t *testing.T) {
	o := options(vfs.NewMem())
	o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = 4<<10, 8<<10, 1<<20
	m := leaving(t, &o, false)
	s := open(t, o)
	s.SetRetention(func() (uint64, bool) { return 0, false })
	for i := range 40 {
		mustWrite(t, s, fmt.Sprint("k", i), strings.Repeat("v", 2000))
	}
	if err := s.Use(func(m shard.StateMachine) error { return m.Flush() }); err != nil {
		t.Fatal(err)
	}
	if err := s.Log().Sync(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ needs, oldest uint64 }{{0, 0}, {11, 11}, {1 << 60, 36}} {
		m.needs.Store(c.needs)
		if err := s.Trim(); err != nil {
			t.Fatal(err)
		}
		if oldest := s.Log().Bounds().Oldest; oldest > c.oldest || oldest+2 < c.oldest {
			t.Errorf("%d is needed, the log begins at %d, want %d or a segment less", c.needs, oldest, c.oldest)
		}
	}
}

// A flush of values that lie in the log waits until most of what was logged has been overwritten, within three quarters of the cap; but
// not where replaying it would take long, since it is many mutations.
func TestFlushesOfLoggedValuesWait(t *testing.T) {
	for _, c := range []struct {
		name          string
		writes, bytes int
		left          int64
		flushed       bool
	}{
		{"nothing is left in the log", 300, 10_000, 0, true},
		{"most is overwritten", 300, 10_000, 150, true},
		{"much is not", 300, 10_000, 400, false},
		{"nearly all is not", 300, 10_000, 995, true},
		{"nothing is overwritten, early", 60, 10_000, 1000, true},
		{"not that early", 40, 10_000, 1000, false},
		{"much is not, near the cap", 700, 10_000, 400, true},
		{"many small ones", 25_000, 50, 400, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(vfs.NewMem())
			o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = 256<<10, 1<<20, 8<<20
			m := leaving(t, &o, false)
			m.left.Store(c.left)
			s := open(t, o)
			s.SetRetention(func() (uint64, bool) { return 0, false })
			for i := range c.writes {
				mustWrite(t, s, fmt.Sprint("k", i%10), strings.Repeat("v", c.bytes))
			}
			if err := s.Trim(); err != nil {
				t.Fatal(err)
			}
			if flushed := m.flushes.Load() > 0; flushed != c.flushed {
				t.Errorf("flushed is %v behind %d bytes of log of which %d in a thousand are left, want %v", flushed, s.Log().Bounds().Bytes, c.left, c.flushed)
			}
		})
	}
}

package shard_test

import (
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// paced is a state machine whose flushes take their time, and that says how far they are.
type paced struct {
	shard.StateMachine
	takes            time.Duration
	done             *atomic.Uint64 // bits of a float64; of the present flush
	flushes, hurries *atomic.Int32
}

func (m paced) Flush() error {
	for i := range 100 {
		m.done.Store(math.Float64bits(float64(i) / 100))
		time.Sleep(m.takes / 100)
	}
	defer m.flushes.Add(1)
	return m.StateMachine.Flush()
}

func (m paced) Progress() float64 { return math.Float64frombits(m.done.Load()) }

func (m paced) Hurry() (release func()) {
	m.hurries.Add(1)
	return func() { m.hurries.Add(-1) }
}

// While a flush runs that the log waits for, writers are slowed down to its pace: none of them waits for the whole of it.
func TestWritersKeepTheFlushesPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(vfs.NewMem())
		o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = 256<<10, 1<<20, 32<<20
		m := paced{takes: 10 * time.Second, done: new(atomic.Uint64), flushes: new(atomic.Int32), hurries: new(atomic.Int32)}
		s := openPaced(t, o, m)
		s.SetRetention(func() (uint64, bool) { return 0, false })
		var longest time.Duration
		hurried := false
		writes, value := 0, strings.Repeat("v", 100<<10)
		for ; m.flushes.Load() < 3; writes++ {
			begun := time.Now()
			mustWrite(t, s, "k", value)
			longest = max(longest, time.Since(begun))
			hurried = hurried || m.hurries.Load() > 0
			if s.Log().PastCap() {
				t.Fatalf("the log is past its cap behind %d writes and %d flushes", writes, m.flushes.Load())
			}
		}
		if longest > 1500*time.Millisecond {
			t.Errorf("a write took %s, beside flushes of 10s", longest)
		}
		if !hurried {
			t.Error("the flushes did not hurry while writers waited for them")
		}
		if writes < 300 {
			t.Errorf("%d writes went on beside three flushes of which each leaves room for 200", writes)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if m.hurries.Load() != 0 {
			t.Error("the hurry has not ended")
		}
	})
}

// openPaced opens a shard with m around its state machine.
func openPaced(t *testing.T, o shard.Options, m paced) *shard.Shard {
	t.Helper()
	inner := o.Open
	o.Open = func(e shard.Env) (_ shard.StateMachine, err error) {
		m := m
		m.StateMachine, err = inner(e)
		return m, err
	}
	return open(t, o)
}

// Behind an ingest that had to wait on its caller's goroutine the next ones are the loop's, however much the loop has waited before.
func TestIngestsWaitInTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := open(t, options(vfs.NewMem()))
		runs := make([][]byte, 300)
		for i := range runs {
			from := mustWrite(t, source, "k", strings.Repeat("v", 100<<10)) - 1
			if err := source.Log().Replay(from, func(f wire.Frame) error { runs[i] = append(runs[i], f.Raw...); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		fs := vfs.NewMem()
		o := options(fs)
		o.Writable, o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = false, 256<<10, 1<<20, 16<<20
		// A part of the room takes longer to gain than anybody waits at once.
		s := openPaced(t, o, paced{takes: time.Minute, done: new(atomic.Uint64), flushes: new(atomic.Int32), hurries: new(atomic.Int32)})
		s.SetRetention(func() (uint64, bool) { return 0, false })
		if err := s.Install(filledDir(t, fs, "/staged", source, 0), source.Lineage().At(0), source.Lineage()); err != nil {
			t.Fatal(err)
		}
		waits, waited := 0, false // on the caller's goroutine, and at the last run
		for i, run := range runs {
			at := uint64(i)
			begun := time.Now()
			done, err := s.TryIngest(run, at, at+1)
			if done && waited {
				t.Fatalf("run %d was ingested on the caller's goroutine behind one that waited there", i)
			}
			if waited = done && time.Since(begun) > 20*time.Millisecond; waited {
				waits++
			}
			if !done {
				err = s.Ingest(run, at, at+1)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if waits < 2 {
			t.Errorf("%d of %d ingests waited on the caller's goroutine, want some", waits, len(runs))
		}
	})
}

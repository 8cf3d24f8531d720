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
)

// paced is a state machine whose flushes take ten seconds, and that says how far they are.
type paced struct {
	shard.StateMachine
	done             *atomic.Uint64 // bits of a float64; of the present flush
	flushes, hurries *atomic.Int32
}

func (m paced) Flush() error {
	for i := range 100 {
		m.done.Store(math.Float64bits(float64(i) / 100))
		time.Sleep(100 * time.Millisecond)
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
		m := paced{done: new(atomic.Uint64), flushes: new(atomic.Int32), hurries: new(atomic.Int32)}
		inner := o.Open
		o.Open = func(e shard.Env) (_ shard.StateMachine, err error) {
			m := m
			m.StateMachine, err = inner(e)
			return m, err
		}
		s := open(t, o)
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

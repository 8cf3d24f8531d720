package shard_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
)

// slow is a state machine whose flush takes its time, unless somebody is in a hurry.
type slow struct {
	shard.StateMachine
	flushing, hurries *atomic.Int32
}

func (m slow) Flush() error {
	m.flushing.Add(1)
	defer m.flushing.Add(-1)
	for range 600 {
		if m.hurries.Load() > 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return m.StateMachine.Flush()
}

func (m slow) Hurry() (release func()) {
	m.hurries.Add(1)
	return func() { m.hurries.Add(-1) }
}

func slowly(o *shard.Options) slow {
	m := slow{flushing: new(atomic.Int32), hurries: new(atomic.Int32)}
	inner := o.Open
	o.Open = func(e shard.Env) (_ shard.StateMachine, err error) {
		m := m
		m.StateMachine, err = inner(e)
		return m, err
	}
	return m
}

// TestFlushDelaysNoSync: under everysec a write is durable within two seconds, however long a flush takes that has begun before.
func TestFlushDelaysNoSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(vfs.NewMem())
		o.Fsync, o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = shard.FsyncEverySec, 256<<10, 1<<20, 64<<20
		m := slowly(&o)
		s := open(t, o)
		for range 30 {
			mustWrite(t, s, "k", strings.Repeat("v", 100<<10))
		}
		for range 30 {
			time.Sleep(100 * time.Millisecond)
			if m.flushing.Load() > 0 {
				break
			}
		}
		if m.flushing.Load() == 0 {
			t.Fatal("nothing is flushed with more log than recovery may replay")
		}
		for range 10 {
			next := mustWrite(t, s, "k", "v")
			time.Sleep(2 * time.Second)
			if at := s.Log().Durable(); at < next {
				t.Fatalf("two seconds behind a write the log is durable up to %d, not %d", at, next)
			}
		}
		if m.flushing.Load() == 0 {
			t.Error("the flush did not last")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestHurry: a stop, and a log past its cap, do not wait for a flush at its own pace.
func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(vfs.NewMem())
		o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = 256<<10, 1<<20, 4<<20
		m := slowly(&o)
		s := open(t, o)
		s.SetRetention(func() (uint64, bool) { return 0, false })
		began := time.Now()
		for range 100 {
			mustWrite(t, s, "k", strings.Repeat("v", 100<<10))
		}
		if took := time.Since(began); took >= 30*time.Second {
			t.Errorf("writes took %s", took)
		}
		began = time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took >= 30*time.Second {
			t.Errorf("the stop took %s", took)
		}
		if m.hurries.Load() != 0 {
			t.Error("the hurry has not ended")
		}
	})
}

package shard_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// stalling is a state machine without room while it is told so.
type stalling struct {
	shard.StateMachine
	full *atomic.Bool
}

func (m stalling) Apply(b wire.Batch) error {
	if m.full.Load() {
		return fmt.Errorf("no room as told: %w", syscall.ENOSPC)
	}
	return m.StateMachine.Apply(b)
}

// TestApplyStalls: a state machine that has no room for what is in the log already refuses writes, and the same batch is
// applied, once, when there is room: the shard needs no restart, and nothing that was logged is lost.
func TestApplyStalls(t *testing.T) {
	fs := vfs.NewMem()
	full := new(atomic.Bool)
	o := options(fs)
	inner := factory(fs, new(atomic.Bool))
	o.Open = func(e shard.Env) (shard.StateMachine, error) {
		m, err := inner(e)
		return stalling{m, full}, err
	}
	s := open(t, o)
	mustWrite(t, s, "a", "1")
	full.Store(true)
	if _, err := write(t, s, "b", "1"); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a write that found no room: %v", err)
	}
	if _, err := write(t, s, "c", "1"); err == nil {
		t.Fatal("a write was taken over one that waits")
	}
	if at := s.Position(); at.Offset != 1 {
		t.Fatalf("published %s before it was applied", at)
	}
	full.Store(false)
	eventuallyTakesWrites(t, s)
	if next := mustWrite(t, s, "d", "1"); next != 3 {
		t.Fatalf("next offset %d, want 3: behind the write that waited", next)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	if got := s.Position().Offset; got != 3 {
		t.Fatalf("opened at %d, want 3", got)
	}
}

// warning is a stalling machine that can tell beforehand.
type warning struct{ stalling }

func (m warning) Err() error {
	if m.full.Load() {
		return fmt.Errorf("no room as told: %w", syscall.ENOSPC)
	}
	return nil
}

// TestNothingIsLoggedThatCannotBeApplied: where the state machine can tell that it would refuse, the refused write leaves no
// trace, and the shard goes on when the machine does.
func TestNothingIsLoggedThatCannotBeApplied(t *testing.T) {
	fs := vfs.NewMem()
	full := new(atomic.Bool)
	o := options(fs)
	inner := factory(fs, new(atomic.Bool))
	o.Open = func(e shard.Env) (shard.StateMachine, error) {
		m, err := inner(e)
		return warning{stalling{m, full}}, err
	}
	s := open(t, o)
	mustWrite(t, s, "a", "1")
	full.Store(true)
	if _, err := write(t, s, "b", "1"); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a write that the machine would refuse: %v", err)
	}
	if next := s.Log().Next(); next != 1 {
		t.Fatalf("the log is at %d: it took what was refused", next)
	}
	full.Store(false)
	eventually.True(t, 10*time.Second, "the shard takes writes again", func() bool { return s.Err() == nil })
	if next := mustWrite(t, s, "c", "1"); next != 2 {
		t.Fatalf("next offset %d, want 2: the refused write has left something", next)
	}
}

func eventuallyTakesWrites(t *testing.T, s *shard.Shard) {
	t.Helper()
	eventually.True(t, 10*time.Second, "the shard takes writes again", func() bool { return s.Err() == nil })
}

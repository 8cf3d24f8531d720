package shard_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// counted is a job that is offered. It tells when two of them run at once, and writes how many its client wrote before.
type counted struct {
	put
	busy *atomic.Int32
	both *atomic.Bool
}

func (c *counted) Run(g *shard.Group) bool {
	if c.busy.Add(1) != 1 {
		c.both.Store(true)
	}
	defer c.busy.Add(-1)
	return c.put.Run(g)
}

func (c *counted) Committed(next uint64, err error) {
	if c.busy.Add(1) != 1 {
		c.both.Store(true)
	}
	c.busy.Add(-1)
	c.put.Committed(next, err)
}

// Many goroutines execute each other's jobs, beside submitted ones, control calls and ticks: every job runs once, one at a
// time, each client's in order, and a Close in the middle leaves none behind.
func TestTurnIsOneOwners(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	var busy atomic.Int32
	var both atomic.Bool
	var ticks, acked atomic.Int64
	s.SetTick(func(g *shard.Group) {
		if busy.Add(1) != 1 {
			both.Store(true)
		}
		busy.Add(-1)
		ticks.Add(1)
	})
	const clients = 8
	var wg sync.WaitGroup
	for c := range clients {
		// A client ends at the shard's Close; waited for below.
		wg.Go(func() {
			for i := 0; ; i++ {
				j := &counted{put{key: fmt.Sprint("k", c), value: fmt.Sprint(i), done: make(chan error, 1)}, &busy, &both}
				var err error
				if c%4 == 3 {
					err = s.Submit(j)
				} else if err = s.Offer(j); err == nil {
					s.Serve(true, nil)
				}
				if err == nil {
					err = <-j.done
				}
				if err != nil {
					if !errors.Is(err, shard.ErrClosed) {
						t.Errorf("client %d, job %d: %v", c, i, err)
					}
					return
				}
				acked.Add(1)
			}
		})
	}
	for range 20 { // control calls have their turn, too
		if err := s.At(t.Context(), s.Position().Offset, func(wire.Position, shard.StateMachine) error { return nil }); err != nil && !errors.Is(err, shard.ErrPassed) {
			t.Fatal(err)
		}
	}
	eventually.True(t, 10*time.Second, "three ticks under load", func() bool { return ticks.Load() >= 3 && acked.Load() > 2000 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if both.Load() {
		t.Error("two goroutines had the turn at once")
	}
	if next := s.Log().Next(); int64(next) != acked.Load() {
		t.Errorf("%d mutations in the log, %d were acknowledged", next, acked.Load())
	}
}

// parked is a job that blocks, as an exclusive section does.
type parked struct {
	began, release chan struct{}
	done           chan error
}

func (p *parked) Run(*shard.Group) bool         { close(p.began); <-p.release; return true }
func (p *parked) Committed(_ uint64, err error) { p.done <- err }

// A job that blocks is the loop's alone: who offers and serves does not wait in it, and is served behind it.
func TestServeNeverBlocks(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	p := &parked{make(chan struct{}), make(chan struct{}), make(chan error, 1)}
	if err := s.Submit(p); err != nil {
		t.Fatal(err)
	}
	j := &put{key: "k", value: "v", done: make(chan error, 1)}
	if err := s.Offer(j); err != nil {
		t.Fatal(err)
	}
	s.Serve(true, nil) // blocks for ever if it takes the parked job
	<-p.began
	s.Serve(true, nil)
	select {
	case <-j.done:
		t.Fatal("the job ran beside the one that holds the shard")
	default:
	}
	close(p.release)
	if err := errors.Join(<-p.done, <-j.done); err != nil {
		t.Fatal(err)
	}
	// Now it is idle: the caller executes, and has the result on return.
	eventually.True(t, 5*time.Second, "an idle shard executes on the caller's goroutine", func() bool {
		j := &put{key: "k", value: "w", done: make(chan error, 1)}
		if err := s.Offer(j); err != nil {
			t.Fatal(err)
		}
		s.Serve(true, nil)
		select {
		case err := <-j.done:
			return err == nil
		default:
			<-j.done
			return false
		}
	})
}

// Who serves with a hold tells readers that wait for what was executed, when it announces; others are told at once.
func TestServeHolds(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	r, err := s.Log().NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var hold shard.Hold
	told := 0
	serve := func(h *shard.Hold) {
		t.Helper()
		j := &put{key: "k", value: "v", done: make(chan error, 1)}
		if err := s.Offer(j); err != nil {
			t.Fatal(err)
		}
		s.Serve(false, h)
		select {
		case err := <-j.done:
			if err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatal("an idle shard did not execute on the caller's goroutine")
		}
	}
	for _, c := range []struct {
		holds int
		end   func()
	}{{1, hold.Announce}, {3, hold.Announce}, {2, func() { serve(nil) }}, {2, func() { mustWrite(t, s, "k", "by the loop") }}} {
		if told = 0; !r.Arm(func() { told++ }) || !hold.Empty() {
			t.Fatal("not armed, or there is something to announce")
		}
		for range c.holds {
			serve(&hold)
		}
		if told > 0 || hold.Empty() {
			t.Fatalf("told %d times of what is held", told)
		}
		if c.end(); told != 1 {
			t.Fatalf("told %d times", told)
		}
		if hold.Announce(); told != 1 || !hold.Empty() {
			t.Fatalf("told %d times, once more of nothing", told)
		}
		for at := uint64(0); at < s.Log().Published(); {
			run, err := r.Next(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			at = run.Next
		}
	}
}

// lingering is a state machine whose Apply waits while it is told to.
type lingering struct {
	shard.StateMachine
	wait func()
}

func (m *lingering) Apply(b wire.Batch) error {
	m.wait()
	return m.StateMachine.Apply(b)
}

// Behind a commit that took long, whoever serves a shard does not wait for the next one: it is the loop's.
func TestServeLeavesSlowCommitsToTheLoop(t *testing.T) {
	var long atomic.Bool
	stall := make(chan struct{})
	var stalled atomic.Bool
	o := options(vfs.NewMem())
	inner := o.Open
	o.Open = func(e shard.Env) (shard.StateMachine, error) {
		m, err := inner(e)
		return &lingering{StateMachine: m, wait: func() {
			switch {
			case long.Swap(false):
				<-time.After(50 * time.Millisecond) // this is the slow disk
			case stalled.Load():
				<-stall
			}
		}}, err
	}
	s := open(t, o)
	offer := func(key string) *put {
		j := &put{key: key, value: "v", done: make(chan error, 1)}
		if err := s.Offer(j); err != nil {
			t.Fatal(err)
		}
		return j
	}
	long.Store(true)
	first := offer("a")
	s.Serve(true, nil)
	stalled.Store(true)
	second := offer("b")
	served := make(chan struct{})
	// Ends at once, unless it executes what was offered; then when the stall does.
	go func() { s.Serve(true, nil); close(served) }()
	select {
	case <-served:
	case <-time.After(10 * time.Second):
		t.Error("Serve waits for a commit behind a slow one")
	}
	stalled.Store(false)
	close(stall)
	for _, j := range []*put{first, second} {
		if err := <-j.done; err != nil {
			t.Error(err)
		}
	}
	<-served
}

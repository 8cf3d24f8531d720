package server

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
)

// Reads that take the disk's time are left to goroutines; a core that was away for once is no reason.
func TestReactorSpreads(t *testing.T) {
	r := &reactor{now: time.Now()}
	r.note(10 * time.Second)
	for range 1000 {
		r.note(10 * time.Microsecond)
	}
	if r.now.Before(r.spread) {
		t.Error("one slow command spread all")
	}
	for range 64 {
		r.note(200 * time.Microsecond)
	}
	if !r.now.Before(r.spread) || r.now.Add(time.Second).Before(r.spread) {
		t.Errorf("spread until %v behind now", r.spread.Sub(r.now))
	}
}

// A reactor serves what it can itself: plain commands start no goroutine, PING does.
func TestReactorServesItself(t *testing.T) {
	r := start(t, 2, nil)
	c := commandtest.Dial(t, r.addr, 2)
	created := func(n int, argv ...string) uint64 {
		s := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
		metrics.Read(s)
		before := s[0].Value.Uint64()
		for range n {
			c.Do(argv...)
		}
		metrics.Read(s)
		return s[0].Value.Uint64() - before
	}
	for _, argv := range [][]string{{"SET", "k", "1"}, {"GET", "k"}, {"INCR", "k"}, {"MSET", "a", "1", "b", "2", "c", "3"}} {
		if n := created(500, argv...); n > 100 { // the machine's noise, and what finds its shard taken
			t.Errorf("%v: %d goroutines for 500 commands", argv, n)
		}
	}
	if n := created(500, "PING"); n < 400 {
		t.Errorf("PING: %d goroutines for 500 commands: the measure shows nothing", n)
	}
}

// What the epoll reports while a goroutine gives its connection up is lost on neither of the two: the reactor takes the
// connection, or the goroutine reads once more.
func TestReactorLosesNoEdge(t *testing.T) {
	k := &socket{writable: make(chan struct{}, 1)}
	r, c := &reactor{}, &conn{socket: k}
	const rounds = 300_000
	var round, done atomic.Int64 // they spin, since a wake-up takes longer than what is to be hit
	var gaveUp atomic.Bool
	var owner sync.WaitGroup
	// The owner, started here, gives up once a round, and ends behind the last one; the test waits for it.
	owner.Go(func() {
		for i := int64(1); i <= rounds; i++ {
			for round.Load() < i {
				runtime.Gosched()
			}
			for range i % 16 {
				_ = round.Load()
			}
			gaveUp.Store(k.state.CompareAndSwap(busy, idle))
			done.Store(i)
		}
	})
	for i := int64(1); i <= rounds; i++ {
		r.ready = r.ready[:0]
		k.state.Store(busy)
		round.Store(i)
		for range i / 16 % 16 {
			_ = round.Load()
		}
		r.noteLocked(c, unix.EPOLLIN)
		for done.Load() < i {
			runtime.Gosched()
		}
		state := k.state.Load()
		if kept := gaveUp.Load() && state == busy && len(r.ready) == 1 || !gaveUp.Load() && state == again && len(r.ready) == 0; !kept && !t.Failed() {
			t.Errorf("round %d: given up %v, state %d, %d ready: what was reported is lost", i, gaveUp.Load(), state, len(r.ready))
		}
	}
	owner.Wait()
}

// Where more than half of the processors are in use, or there is one, a reactor leaves its own to others.
func TestUse(t *testing.T) {
	var u use
	now, cpu := time.Now(), time.Duration(0)
	for _, step := range []struct {
		d, cpu     time.Duration
		processors int
		want       bool
	}{
		{time.Second, 0, 2, false},
		{10 * time.Millisecond, 10 * time.Millisecond, 2, false}, // a reactor that is never idle
		{10 * time.Millisecond, 11 * time.Millisecond, 2, true},
		{20 * time.Millisecond, 39 * time.Millisecond, 4, false},
		{20 * time.Millisecond, 41 * time.Millisecond, 4, true},
		{time.Hour, 0, 1, true},
		{time.Hour, time.Minute, 2, false},
	} {
		now, cpu = now.Add(step.d), cpu+step.cpu
		if u.note(now, cpu, step.processors); u.high != step.want {
			t.Errorf("%v within %v on %d processors: %v", step.cpu, step.d, step.processors, u.high)
		}
		soon := useEvery
		if u.high {
			soon = highFor
		}
		if u.much(now.Add(soon-1)) != step.want || u.at != now {
			t.Error("it was looked at again too soon")
		}
	}
	u.cpu = -time.Hour // nothing but the process's own clock makes up for that
	if now = now.Add(useEvery); !u.much(now) || u.cpu <= 0 {
		t.Errorf("the process's clock is not looked at: %v", u.cpu)
	}
	u.cpu = time.Hour
	if u.much(now.Add(useEvery)); u.cpu != time.Hour {
		t.Error("it was looked at again too soon where much was in use")
	}
	if now = now.Add(highFor); u.much(now) || u.cpu == time.Hour {
		t.Errorf("the process's clock is not looked at any more: %v", u.cpu)
	}
}

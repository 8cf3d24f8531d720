package server

import (
	"runtime/metrics"
	"testing"
	"time"

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

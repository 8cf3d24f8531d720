package server

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/wire"
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

// A reactor serves what it can itself: plain commands start no goroutine, CLIENT LIST does.
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
	for _, argv := range [][]string{{"SET", "k", "1"}, {"GET", "k"}, {"INCR", "k"}, {"MSET", "a", "1", "b", "2", "c", "3"}, {"PING"}, {"HELLO", "2"}, {"CLIENT", "ID"}} {
		if n := created(500, argv...); n > 100 { // the machine's noise, and what finds its shard taken
			t.Errorf("%v: %d goroutines for 500 commands", argv, n)
		}
	}
	if n := created(500, "CLIENT", "LIST"); n < 400 {
		t.Errorf("CLIENT LIST: %d goroutines for 500 commands: the measure shows nothing", n)
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

// A reactor is busy when it had something to do for more than half of the last few milliseconds; how long it slept before does not count.
func TestUsage(t *testing.T) {
	var u usage
	now := time.Now()
	round := func(n int, busy, idle time.Duration) {
		for range n {
			var since time.Time
			if idle > 0 {
				since = now.Add(busy)
			}
			end := now.Add(busy + idle)
			u.note(now, since, end)
			now = end
		}
	}
	const us = time.Microsecond
	if u.high() {
		t.Error("high before the first round")
	}
	for _, c := range []struct {
		rounds     int
		busy, idle time.Duration
		want       bool
	}{
		{100, 60 * us, 40 * us, true},
		{100, 40 * us, 60 * us, false},
		{50, 100 * us, 0, true},
		{1, 0, time.Hour, false},
		{100, 100 * us, 0, true},
		{1, 0, 100 * us, true},
	} {
		if round(c.rounds, c.busy, c.idle); u.high() != c.want {
			t.Errorf("behind %d rounds of %v and %v of nothing: high is %v", c.rounds, c.busy, c.idle, u.high())
		}
	}
}

// What a reactor holds it holds for a busy one's rounds of several clients without pipelines only, and for so many bytes, while there are
// many on average.
func TestHolds(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		idle, since  time.Duration
		conns, asked int
		got, bytes   int
		want         bool
	}{
		"many clients":  {0, holdFor / 4, 20, 20, 2000, 0, true},
		"some bytes":    {0, holdFor / 4, 20, 20, 2000, holdBytes - 2000, true},
		"enough bytes":  {0, holdFor / 4, 20, 20, 2000, holdBytes - 1999, false},
		"few clients":   {0, holdFor / 4, holdFrom - 1, holdFrom - 1, 300, 0, false},
		"pipelines":     {0, holdFor / 4, 20, 41, 2000, 0, false},
		"nothing to do": {usageFor / 2, holdFor / 4, 20, 20, 2000, 0, false},
		"long rounds":   {0, holdFor, 20, 20, 2000, 0, false},
	} {
		// The log is only listed: nothing is announced here.
		r := &reactor{now: now, before: now.Add(-c.since), asked: c.asked, got: c.got, offered: make([]*conn, c.conns)}
		r.usage, r.crowd = usage{whole: usageFor, idle: c.idle}, holdCrowd*crowdOver
		if r.bytes = c.bytes; c.bytes > 0 {
			r.hold.Note(nil)
		}
		if got := r.holds() != nil; got != c.want {
			t.Errorf("%s: holds is %v", name, got)
		}
		if r.asked != 0 || r.got != 0 {
			t.Errorf("%s: the next round begins with %d commands of %d bytes", name, r.asked, r.got)
		}
	}
}

// Many clients at once hold nothing as long as there are few on average, and a few do while there are many; rounds without any count for
// nothing.
func TestCrowd(t *testing.T) {
	now := time.Now()
	r := &reactor{now: now, before: now.Add(-holdFor / 4), usage: usage{whole: usageFor}}
	holds := func(conns int) bool {
		r.offered = make([]*conn, conns)
		r.asked = conns
		return r.holds() != nil
	}
	for i := range 20 * crowdOver {
		if conns := []int{2, 3, 50, 3, 2, 1}[i%6]; holds(conns) {
			t.Fatalf("round %d, of %d clients, is held", i, conns)
		}
	}
	n := 0
	for n < 20*crowdOver && !holds(2*holdCrowd) {
		n++
	}
	if n < 2 || n > 2*crowdOver {
		t.Errorf("the first round of many clients that is held is number %d", n)
	}
	for range 10 * crowdOver {
		holds(2 * holdCrowd)
	}
	for range 10 * crowdOver {
		if holds(0) {
			t.Fatal("a round of nobody is held")
		}
	}
	if !holds(holdFrom) {
		t.Error("a round of some clients among those of many is not held")
	}
	for n = 0; n < 20*crowdOver && holds(holdFrom); {
		n++
	}
	if n < 2 || n > 2*crowdOver {
		t.Errorf("rounds of few clients are held %d times", n)
	}
}

// Replicas hear at once of what a few clients write, and now and then of what many do, but always of the last.
func TestReactorTellsReplicas(t *testing.T) {
	r := start(t, 1, nil)
	log := r.ks.Shards()[0].Log()
	var told atomic.Int64
	feeder, err := log.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	var feeding sync.Mutex
	at := uint64(0)
	var next func()
	next = func() {
		told.Add(1)
		feeding.Lock()
		defer feeding.Unlock()
		for !feeder.Arm(func() { next() }) {
			run, err := feeder.Next(t.Context(), 0)
			if err != nil {
				return
			}
			at = run.Next
		}
	}
	next()
	defer func() { feeding.Lock(); feeder.Close(); feeding.Unlock() }()

	alone := commandtest.Dial(t, r.addr, 2)
	for i := range 100 {
		before := told.Load()
		alone.Do("SET", "k", fmt.Sprint(i))
		if told.Load() == before {
			t.Fatalf("SET %d was answered before a replica heard of it", i)
		}
	}

	groups := func() (n int64) {
		if err := log.Replay(0, func(wire.Frame) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	many := make([]net.Conn, 160)
	for i := range many {
		if many[i], err = net.Dial("tcp", r.addr); err != nil {
			t.Fatal(err)
		}
		defer many[i].Close()
	}
	try := 0
	eventually.True(t, 30*time.Second, "several groups are told at once", func() bool {
		// How many clients make rounds that are large and short enough depends on the machine, and on the race detector.
		some := many[:[]int{24, 48, 64, 96, 160}[try%5]]
		writers := []int{1, 2, 4}[try/5%3]
		try++
		ran, heard := groups(), told.Load()
		var clients sync.WaitGroup
		for part := range slices.Chunk(some, len(some)/writers) {
			// Each ends with its 50 rounds, or a connection's fault; the test waits below.
			clients.Go(func() {
				for range 50 {
					for _, c := range part {
						if _, err := io.WriteString(c, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"); err != nil {
							t.Error(err)
							return
						}
					}
					for _, c := range part {
						var ok [5]byte
						if _, err := io.ReadFull(c, ok[:]); err != nil || string(ok[:]) != "+OK\r\n" {
							t.Errorf("answered %q, %v", ok, err)
							return
						}
					}
				}
			})
		}
		if clients.Wait(); t.Failed() {
			t.FailNow()
		}
		eventually.True(t, 10*time.Second, "the last one is told", func() bool {
			feeding.Lock()
			defer feeding.Unlock()
			return at == log.Published()
		})
		ran, heard = groups()-ran, told.Load()-heard
		t.Logf("%d clients of %d: %d groups, told %d times", len(some), writers, ran, heard)
		return heard <= ran-10
	})
}

// A reactor lingers where something comes meanwhile, and where nothing does it only tries at times.
func TestSpin(t *testing.T) {
	var s spin
	tries := func(n int, came bool) (tried int) {
		for range n {
			if s.worth() {
				tried++
				s.note(came)
			}
		}
		return tried
	}
	if n := tries(10*maxSpin, false); n != 10 {
		t.Errorf("tried %d times of %d where nothing comes", n, 10*maxSpin)
	}
	if n := tries(10*maxSpin, true); n < 9*maxSpin {
		t.Errorf("tried %d times of %d where something comes", n, 10*maxSpin)
	}
	if n := tries(10*maxSpin, false); n > maxSpin+10 {
		t.Errorf("went on %d times of %d where nothing comes any more", n, 10*maxSpin)
	}
}

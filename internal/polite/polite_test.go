package polite

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A worker yields when its turn has been long enough, and its next turn begins then.
func TestYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w Worker
		if !w.Yield() {
			t.Error("the first call does not yield")
		}
		for range 3 {
			for range 4 {
				if w.Yield() {
					t.Error("a yield within a turn")
				}
				time.Sleep(turn / 4)
			}
			if !w.Yield() {
				t.Error("no yield behind a turn")
			}
		}
	})
}

// work has n workers share a budget for a second, each in pieces of a tenth of a turn, and returns what each has done.
func work(n int, processors float64, urgent bool) []time.Duration {
	budget := NewBudget(processors)
	done := make([]time.Duration, n)
	end := time.Now().Add(time.Second)
	var all sync.WaitGroup
	for i := range n {
		// A worker, started here, ends with the second; work waits for all.
		all.Go(func() {
			w := Worker{Budget: budget, Urgent: func() bool { return urgent }}
			for time.Now().Before(end) {
				w.Yield()
				time.Sleep(turn / 10)
				done[i] += turn / 10
			}
		})
	}
	all.Wait()
	return done
}

// However many share a budget, they do not take more than it together, and each of them goes on.
func TestBudget(t *testing.T) {
	for _, c := range []struct {
		workers    int
		processors float64
		urgent     bool
		want       float64 // processors, all together
	}{
		{1, 1, false, 1},
		{1, 4, false, 1},
		{1, 0.25, false, 0.25},
		{2, 1, false, 1},
		{3, 0.5, false, 0.5},
		{4, 2, false, 2},
		{3, 1.5, false, 1.5},
		{4, 0.01, false, 0.01},
		{4, 1, true, 4},
	} {
		synctest.Test(t, func(t *testing.T) {
			var sum time.Duration
			done := work(c.workers, c.processors, c.urgent)
			for i, d := range done {
				if sum += d; c.processors >= 0.1 && d < time.Duration(c.want*float64(time.Second)/float64(c.workers)/2) {
					t.Errorf("%+v: worker %d did %s", c, i, d)
				}
			}
			if got := sum.Seconds(); got < 0.9*c.want || got > 1.1*c.want+0.01 {
				t.Errorf("%+v: together they did %.3f s of work in a second: %v", c, got, done)
			}
		})
	}
}

// A worker that does not come back from its turn costs the others nothing.
func TestStuckWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := NewBudget(1)
		stuck, w := Worker{Budget: budget}, Worker{Budget: budget}
		stuck.Yield()
		began := time.Now()
		for range 100 {
			w.Yield()
			time.Sleep(turn)
		}
		if took := time.Since(began); took > 100*turn+grant {
			t.Errorf("100 turns took %s", took)
		}
	})
}

// Without a worker nobody yields.
func TestNobodyYields(t *testing.T) {
	var w *Worker
	if w.Yield() {
		t.Error("nobody has yielded")
	}
}

// A worker that gives the machine's processor up does so once a turn, as long as it is to.
func TestGives(t *testing.T) {
	given := 0
	defer func(f func()) { giveUp = f }(giveUp)
	giveUp = func() { given++ }
	synctest.Test(t, func(t *testing.T) {
		gives := true
		w := Worker{Budget: NewBudget(1), Gives: func() bool { return gives }}
		for range 10 * 10 {
			w.Yield()
			time.Sleep(turn / 10)
		}
		if given != 10 {
			t.Errorf("given up %d times in 10 turns", given)
		}
		gives = false
		time.Sleep(turn)
		if !w.Yield() || given != 10 {
			t.Errorf("given up %d times, the last time in vain", given)
		}
		w = Worker{}
		if !w.Yield() || given != 10 {
			t.Error("given up by who never does")
		}
	})
}

// Somebody is at work from the end of a worker's turn on until 20 ms behind the last one, however many there are; and who keeps a processor
// is told when that begins.
func TestAtWork(t *testing.T) {
	worked.Store(0)
	defer worked.Store(0)
	synctest.Test(t, func(t *testing.T) {
		told := 0
		release := Keep(func() { told++ })
		want := func(at bool, n int, when string) {
			t.Helper()
			if AtWork() != at || told != n {
				t.Errorf("%s: at work %v, told %d times; want %v and %d", when, AtWork(), told, at, n)
			}
		}
		want(false, 0, "before any worker")
		var first, second Worker
		first.Yield()
		want(true, 1, "a worker has begun")
		for range 30 {
			time.Sleep(lately - 1)
			second.Yield()
		}
		want(true, 1, "others have gone on")
		time.Sleep(lately - 1)
		want(true, 1, "just before it counts no more")
		time.Sleep(time.Nanosecond)
		want(false, 1, "nobody has gone on")
		first.Yield()
		want(true, 2, "one has begun again")
		time.Sleep(lately)
		release()
		first.Yield()
		want(true, 2, "the keeper is gone")
	})
}

// Package polite is for goroutines that work for long without waiting for anything: the runtime takes a processor from one of
// them after 10 ms only, and a client whose request has just arrived would wait for as long.
package polite

import (
	"runtime"
	"sync/atomic"
	"time"
)

// turn is how long a worker keeps its processor. Who has yielded is last in line, so it must be long enough for its work to
// go on beside many that wait for something every few microseconds.
const turn = time.Millisecond

// grant is how long a worker goes on, yielding, before it asks its budget again: to sleep costs a wake-up, and some of the runtime's
// threads look for work in vain each time.
const grant = 4 * turn

// lately is for how long somebody counts as at work who has yielded: longer than budgets let them wait, as a rule.
const lately = 20 * turn

var (
	began  = time.Now()
	worked atomic.Int64 // when a worker has yielded last, in nanoseconds behind began
)

// AtWork reports whether any worker of the process has been at work within the last 20 ms. Any goroutine may ask.
func AtWork() bool {
	at := worked.Load()
	return at != 0 && time.Since(began)-time.Duration(at) < lately
}

// Budget is what the workers that share it take of the processors together. It grants them four milliseconds at a time, each of which begins
// that length over the number of processors behind the last one: with one processor they work one at a time, and with half of
// one nobody works half of the time. A worker that is stuck keeps nobody from working.
type Budget struct {
	began time.Time
	apart time.Duration
	next  atomic.Int64 // when the next grant may begin, in nanoseconds behind began
}

// NewBudget makes a budget of so many processors, which must be more than none.
func NewBudget(processors float64) *Budget {
	return &Budget{began: time.Now(), apart: time.Duration(float64(grant) / processors)}
}

// take takes a grant and returns how long it is until it begins.
func (b *Budget) take() time.Duration {
	now := int64(time.Since(b.began))
	for {
		next := b.next.Load()
		begin := max(now, next)
		if b.next.CompareAndSwap(next, begin+int64(b.apart)) {
			return time.Duration(begin - now)
		}
	}
}

// Worker is the state of such a goroutine, which alone uses it. The zero value is ready: it shares no budget.
type Worker struct {
	Budget *Budget
	Urgent func() bool // while it is true the budget does not count; nil is never
	// Gives tells whether it gives up the machine's processor with each turn, too, to whichever thread waits for it, of this process or of
	// others, which would else have to wait for some ms. Who does that gets less of a machine that is busy. nil is never.
	Gives func() bool
	began time.Time
	until time.Time // the end of what the budget granted
}

// Yield lets others run, if the last time was a while ago, and waits for what its budget grants. It reports whether it did. Call it
// between two pieces of work that take some ten microseconds: it looks at the clock. A nil worker never yields.
func (w *Worker) Yield() bool {
	if w == nil || time.Since(w.began) < turn {
		return false
	}
	wait := time.Duration(0)
	if now := time.Now(); w.Budget != nil && !now.Before(w.until) && (w.Urgent == nil || !w.Urgent()) {
		wait = w.Budget.take()
		w.until = now.Add(wait + grant)
	}
	if wait > 0 {
		time.Sleep(wait)
	} else {
		runtime.Gosched()
	}
	if w.Gives != nil && w.Gives() {
		giveUp()
	}
	w.began = time.Now()
	now := int64(w.began.Sub(began))
	if before := worked.Swap(now); before == 0 || time.Duration(now-before) >= lately {
		tellKeepers()
	}
	return true
}

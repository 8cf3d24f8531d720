package polite

import "time"

// A Ticker is a [time.Ticker] whose ticks fall together with those of all others of the process that have the same period, or one that
// divides it: at its multiples since the process began. A thread that wakes up in an idle process costs more than most of
// what is done once in a while; so one wakes up for all of them.
//
// One goroutine uses it. It calls Next behind each tick that it has received.
type Ticker struct {
	C     <-chan time.Time
	timer *time.Timer
	every time.Duration
}

// NewTicker returns a ticker with the period every. Stop it.
func NewTicker(every time.Duration) *Ticker {
	t := &Ticker{every: every, timer: time.NewTimer(untilTick(time.Since(began), every))}
	t.C = t.timer.C
	return t
}

// Next is the end of a tick: C tells of the next one from now on.
func (t *Ticker) Next() { t.timer.Reset(untilTick(time.Since(began), t.every)) }

// Stop ends the ticks.
func (t *Ticker) Stop() { t.timer.Stop() }

// untilTick is how long it is from now, a time since the process began, until the next multiple of every. In time of its own, as in a bubble of
// testing/synctest, that is before the process began, nothing is together, and it is every.
func untilTick(now, every time.Duration) time.Duration {
	if now < 0 {
		return every
	}
	return every - now%every
}

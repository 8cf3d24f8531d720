package server

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// use tells whether much of this process's processors is in use.
type use struct {
	at   time.Time // when it was last looked at
	cpu  time.Duration
	high bool
}

// useEvery is how often it is looked at, about as often as the kernel counts what a running thread has used. Where much was in use, nobody
// is surprised by more of it, and it is looked at again after highFor.
const (
	useEvery = 4 * time.Millisecond
	highFor  = 5 * useEvery
)

// much reports whether more than half of the processors were in use of late, or there is just one.
func (u *use) much(now time.Time) bool {
	if d := now.Sub(u.at); d >= highFor || d >= useEvery && !u.high {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) // fails for no clock that there is
		u.note(now, time.Duration(ts.Nano()), runtime.GOMAXPROCS(0))
	}
	return u.high
}

// note takes what the process has used until now.
func (u *use) note(now time.Time, cpu time.Duration, processors int) {
	u.high = processors < 2 || 2*(cpu-u.cpu)/time.Duration(processors) > now.Sub(u.at)
	u.at, u.cpu = now, cpu
}

package sim

import (
	"bytes"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// limits are how long a run may take. Past one of them it is not waited for any more.
type limits struct {
	real      time.Duration // by the wall clock: somebody spins, or waits for what no bubble knows
	simulated time.Duration // ... or everybody goes on for ever, and nobody gets anywhere
}

// limitsOf leaves ample room: a run takes a tenth of a second, and a few minutes of simulated time, or a quarter of an hour
// where a schedule waits for windows.
func limitsOf(sc Scenario) limits {
	steps := time.Duration(len(sc.Steps))
	return limits{real: 2*time.Minute + steps*time.Second, simulated: 2*time.Hour + steps*2*time.Minute}
}

// watch has a world driven in a bubble. If that does not end, the result says so, with the transcript so far and what each
// goroutine of the bubble was at; they stay where they are, and may go on.
func watch(sc Scenario, log hclog.Logger, l limits, drive func(*world)) Result {
	var running atomic.Pointer[world]
	var number atomic.Pointer[string]
	late := make(chan struct{}, 1)
	done := make(chan Result, 1) // of a run that ended, or of one in which everybody waits
	stuck := func(format string, args ...any) (r Result) {
		r.Violation = &Violation{4, "the run does not end: " + fmt.Sprintf(format, args...)}
		if w := running.Load(); w != nil {
			w.mu.Lock()
			r.Transcript = slices.Clone(w.mu.lines)
			w.mu.Unlock()
		}
		r.Goroutines = goroutines(number.Load())
		return r
	}
	// The goroutine is the bubble's root: it ends with the run, which is what watch waits for, or never.
	go func() {
		var r Result
		defer func() {
			if why := recover(); why != nil {
				r = stuck("%v", why)
			}
			done <- r
		}()
		bubble(func() {
			w := newWorld(sc, log)
			running.Store(w)
			number.Store(bubbleNumber())
			// The timer only tells: late has room.
			defer time.AfterFunc(l.simulated, func() { late <- struct{}{} }).Stop()
			drive(w)
			r = Result{Violation: w.violation(), Transcript: w.mu.lines, Simulated: time.Since(w.start)}
		})
	}()
	limit := time.NewTimer(l.real)
	defer limit.Stop()
	select {
	case r := <-done:
		return r
	case <-late:
		select {
		case r := <-done: // the timer may have been all that was left to wait for
			return r
		case <-time.After(time.Second):
		}
		return stuck("%s of simulated time have passed", l.simulated)
	case <-limit.C:
		return stuck("%s have passed", l.real)
	}
}

var inBubble = regexp.MustCompile(`synctest bubble \d+\b`)

// bubbleNumber is what the runtime calls the bubble that it is called in; nil if it does not tell.
func bubbleNumber() *string {
	b := make([]byte, 256)
	if m := inBubble.Find(b[:runtime.Stack(b, false)]); m != nil {
		s := string(m)
		return &s
	}
	return nil
}

// goroutines are the stacks of a bubble's goroutines, or of all if it is not known.
func goroutines(bubble *string) string {
	b := make([]byte, 8<<20)
	n := runtime.Stack(b, true)
	for n == len(b) && n < 1<<28 { // it was cut off
		b = make([]byte, 2*n)
		n = runtime.Stack(b, true)
	}
	b = b[:n]
	if bubble == nil {
		return string(b)
	}
	var of []string
	for _, g := range bytes.Split(b, []byte("\n\n")) {
		head, _, _ := bytes.Cut(g, []byte("\n"))
		// Who waits for the garbage collector is in no bubble for that moment (Go 1.26).
		in := inBubble.Find(head)
		if string(in) == *bubble || in == nil && bytes.Contains(g, []byte("created by testing/synctest.")) {
			of = append(of, string(g))
		}
	}
	return strings.Join(of, "\n\n")
}

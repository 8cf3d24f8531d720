package sim

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// waitsForEver is on the stack of the one goroutine that a run leaves behind here: nothing can wake it.
func waitsForEver() { <-make(chan int) }

// A run that does not end is given up, whatever keeps it: a goroutine that waits for what is outside of the bubble, one that
// goes on for ever in simulated time, or everybody waiting for each other. What comes of it has the transcript so far, and
// what the goroutines were at.
func TestRunThatDoesNotEnd(t *testing.T) {
	outside := make(chan int)
	defer close(outside)
	var enough atomic.Bool
	defer enough.Store(true)
	for name, c := range map[string]struct {
		limits limits
		drive  func()
		text   string
	}{
		"real time":      {limits{50 * time.Millisecond, time.Hour}, func() { <-outside }, "50ms have passed"},
		"simulated time": {limits{time.Minute, time.Hour}, func() { goesOnForEver(&enough) }, "1h0m0s of simulated time"},
		"a deadlock":     {limits{time.Minute, 0}, waitsForEver, "deadlock: all goroutines in bubble are blocked"},
	} {
		r := watch(Generate(1, Options{}), nil, c.limits, func(w *world) {
			w.event("it begins")
			c.drive()
		})
		if v := r.Violation; v == nil || v.Invariant != 4 || !strings.Contains(v.Text, "does not end: "+c.text) {
			t.Errorf("%s: %v", name, v)
		}
		if len(r.Transcript) != 1 || !strings.Contains(r.Transcript[0], "it begins") {
			t.Errorf("%s: the transcript is %q", name, r.Transcript)
		}
		if !strings.Contains(r.Goroutines, "TestRunThatDoesNotEnd") || strings.Contains(r.Goroutines, "testing.(*M).Run") {
			t.Errorf("%s: these are not the goroutines of the bubble, or not those alone:\n%s", name, r.Goroutines)
		}
		if small, again := shrink(Generate(1, Options{}), 9, func(Scenario) Result { return r }); again.Goroutines == "" || len(small.Steps) != DefaultSteps {
			t.Errorf("%s: shrunk to %s", name, small)
		}
	}
}

func goesOnForEver(enough *atomic.Bool) {
	for !enough.Load() {
		<-time.After(time.Second)
	}
}

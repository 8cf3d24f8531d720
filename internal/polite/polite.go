// Package polite is for goroutines that work for long without waiting for anything: the runtime takes a processor from one of
// them after 10 ms only, and a client whose request has just arrived would wait for as long.
package polite

import (
	"runtime"
	"time"
)

// turn is how long a worker keeps its processor. Who has yielded is last in line, so it must be long enough for its work to
// go on beside many that wait for something every few microseconds.
const turn = time.Millisecond

// Worker is the state of such a goroutine, which alone uses it. The zero value is ready.
type Worker struct{ began time.Time }

// Yield lets others run, if the last time was a while ago. It reports whether it did. Call it between two pieces of work that
// take some ten microseconds: it looks at the clock.
func (w *Worker) Yield() bool {
	if time.Since(w.began) < turn {
		return false
	}
	runtime.Gosched()
	w.began = time.Now()
	return true
}

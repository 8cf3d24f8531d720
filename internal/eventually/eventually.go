// Package eventually lets a test wait for a condition with a deadline, instead of for a time.
package eventually

import (
	"testing"
	"time"
)

// True polls until the condition holds, and fails the test when it does not within the limit. It may be used only on the
// test's own goroutine.
func True(t testing.TB, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	for l := Within(limit); !condition(); l.Wait(2 * time.Millisecond) {
		if l.Over() {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Limit is a limit in time for who polls. What the process sleeps through while it waits, or its machine, does not count: what is tested did not
// run then, either. One goroutine uses it.
type Limit struct{ end time.Time }

// Within is a limit that begins now.
func Within(d time.Duration) *Limit { return &Limit{time.Now().Add(d)} }

// Over reports whether the limit is behind.
func (l *Limit) Over() bool { return !time.Now().Before(l.end) }

// asleep is by how much a wait has to be too long for the process, or its machine, not to have run meanwhile.
const asleep = time.Second

// Wait waits before the next look.
func (l *Limit) Wait(d time.Duration) {
	begun := time.Now()
	<-time.After(d)
	if late := time.Since(begun) - d; late >= asleep {
		l.end = l.end.Add(late)
	}
}

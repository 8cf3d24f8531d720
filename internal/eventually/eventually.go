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
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

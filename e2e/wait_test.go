package e2e

import (
	"fmt"
	"testing"
	"time"

	limits "github.com/understudy-kv/understudy/internal/eventually"
)

// poll is how often a condition is looked at.
const poll = 25 * time.Millisecond

// eventually waits until cond returns nil, and fails the test with its last error when that takes too long.
func eventually(t testing.TB, within time.Duration, what string, cond func() error) {
	t.Helper()
	if err := await(within, cond); err != nil {
		t.Fatalf("%s: not within %s: %v", what, within, err)
	}
}

// await is eventually without a test to fail.
func await(within time.Duration, cond func() error) error {
	for l := limits.Within(within); ; l.Wait(poll) {
		if err := cond(); err == nil || l.Over() {
			return err
		}
	}
}

// hold lets a situation last, where its duration is the scenario.
func hold(d time.Duration) { <-time.After(d) }

// throughout checks that a condition holds all the time while a situation lasts.
func throughout(t testing.TB, d time.Duration, what string, cond func() error) {
	t.Helper()
	began := time.Now()
	for l := limits.Within(d); !l.Over(); l.Wait(4 * poll) {
		if err := cond(); err != nil {
			t.Fatalf("%s: broken after %s of %s: %v", what, time.Since(began).Round(time.Millisecond), d, err)
		}
	}
}

func wantEqual[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func errorf(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

package polite

import (
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

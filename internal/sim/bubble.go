package sim

import (
	"sync"
	"testing"
	"testing/synctest"
)

var initTesting = sync.OnceFunc(testing.Init)

// bubble runs f in a bubble of testing/synctest, and returns when f and every goroutine that it started have ended. The
// clock in it begins at 2000-01-01 and moves only when all of them wait. synctest wants a test; outside of go test there
// is none, and an empty one does: nothing in here fails or logs through it.
func bubble(f func()) {
	initTesting()
	synctest.Test(new(testing.T), func(*testing.T) { f() })
}

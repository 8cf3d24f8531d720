package server

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// Where --memory is as little as it may be, and all of it is in use, beside full backlogs, what is allocated for each request is not collected
// all the time.
func TestLittleMemoryLeavesRoomForGarbage(t *testing.T) {
	limit := debug.SetMemoryLimit(-1)
	percent := debug.SetGCPercent(100)
	t.Cleanup(func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	})
	t.Setenv("GOMEMLIMIT", "")
	t.Setenv("GOGC", "")
	beside := minMemory // two backlogs of 16 MiB, which is the default
	tuneMemory(hclog.NewNullLogger(), minMemory, beside)
	live := make([]byte, minMemory+beside)
	for i := 0; i < len(live); i += 4096 {
		live[i] = 1
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const garbage = 1 << 30
	for n := 0; n < garbage; n += 8 << 10 {
		block = make([]byte, 8<<10)
	}
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(live)
	if n := after.NumGC - before.NumGC; n > 120 {
		t.Errorf("%d collections for %d MiB of garbage", n, garbage>>20)
	}
}

// block is where garbage comes from: the compiler cannot do without it.
var block []byte

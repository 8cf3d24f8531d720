package server

import (
	"os"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/units"
)

// gcPercent lets the heap grow to several times what is live before it is collected. The memory limit is what bounds
// it: near the limit the collector runs as often as it must.
const gcPercent = 400

// footprint is what a process needs that no setting speaks of: the runtime itself, stacks, and room for garbage. Without it
// the collector would run all the time where --memory is little and caches and backlogs are full.
const footprint = 32 * units.MiB

// tuneMemory tells the Go runtime what the process may use: --memory, what is promised beside it, and its footprint. The runtime's own
// variables, GOGC and GOMEMLIMIT, rank above it.
func tuneMemory(log hclog.Logger, memory, beside units.Bytes) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(memory + beside + footprint))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	log.Debug("memory", "caches", memory, "backlogs", beside, "limit", units.Bytes(debug.SetMemoryLimit(-1)))
}

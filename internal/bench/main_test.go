package bench

import (
	"testing"

	"go.uber.org/goleak"
)

// The goroutine that starts children lives as long as the process: the kernel ends the children with its thread.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/understudy-kv/understudy/internal/bench.startChildren"))
}

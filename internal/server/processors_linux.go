package server

import (
	"os"
	"runtime"
	"sync"
)

// processors counts what reactors keep for themselves of the Go scheduler's processors.
var processors struct {
	sync.Mutex
	added int
}

// addProcessors gives the Go scheduler n more processors, or takes them away again if n is negative. It does nothing and returns
// false where whoever started the process has said how many there are to be.
func addProcessors(n int) bool {
	if os.Getenv("GOMAXPROCS") != "" {
		return false
	}
	p := &processors
	p.Lock()
	defer p.Unlock()
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0)+n, 1))
	p.added += n
	return true
}

// plainProcessors is how many processors the scheduler has but for those of reactors.
func plainProcessors() int {
	p := &processors
	p.Lock()
	defer p.Unlock()
	return max(runtime.GOMAXPROCS(0)-p.added, 1)
}

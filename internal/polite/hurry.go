package polite

import (
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
)

// processors is what the process has changed of GOMAXPROCS.
var processors struct {
	sync.Mutex
	keepers int // goroutines that keep their processor while they wait
	hurries int
	before  int // GOMAXPROCS without the additional ones; 0 if there are none
}

// Keep says that a goroutine keeps one of the runtime's processors while it waits, until release is called. Whenever a worker begins to be
// at work (AtWork) it calls begun, on the worker's goroutine; it must not wait.
func Keep(begun func()) (release func()) {
	calls.Lock()
	defer calls.Unlock()
	n := calls.next
	calls.next++
	calls.begun[n] = begun
	forget := count(&processors.keepers)
	return func() {
		calls.Lock()
		delete(calls.begun, n)
		calls.Unlock()
		forget()
	}
}

// calls are what the present keepers have given.
var calls = struct {
	sync.Mutex
	begun map[int]func()
	next  int
}{begun: map[int]func(){}}

// tellKeepers calls them. A keeper that has released may still be called, by a worker that began before.
func tellKeepers() {
	calls.Lock()
	all := slices.Collect(maps.Values(calls.begun))
	calls.Unlock()
	for _, f := range all {
		f()
	}
}

// Hurry has the runtime use one processor more for each goroutine that keeps one until release is called, which may be done again:
// somebody waits for work that could use all of them. Without such a goroutine it does nothing.
//
// The kernel shares the machine's processors out then, and who has waited comes first; the runtime would have the goroutine wait
// behind those that work.
func Hurry() (release func()) { return count(&processors.hurries) }

// Processors is how many the runtime uses, but for those that it has for a while.
func Processors() int {
	processors.Lock()
	defer processors.Unlock()
	return baseLocked()
}

func baseLocked() int {
	if processors.before > 0 {
		return processors.before
	}
	return runtime.GOMAXPROCS(0)
}

func count(n *int) (release func()) {
	add := func(d int) {
		processors.Lock()
		defer processors.Unlock()
		*n += d
		adjustLocked()
	}
	add(1)
	return sync.OnceFunc(func() { add(-1) })
}

func adjustLocked() {
	p := &processors
	base := baseLocked()
	switch want := base + p.keepers; {
	case p.hurries > 0 && p.keepers > 0 && base > p.keepers: // with fewer, nobody keeps any
		if p.before = base; runtime.GOMAXPROCS(0) != want {
			runtime.GOMAXPROCS(want)
		}
	case p.before == 0:
	case os.Getenv("GOMAXPROCS") != "":
		p.before = 0
		runtime.GOMAXPROCS(base)
	default:
		p.before = 0
		runtime.SetDefaultGOMAXPROCS() // and follow the container's limit again
	}
}

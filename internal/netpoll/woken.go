package netpoll

import "sync/atomic"

var woken atomic.Bool

// Wake notes that the caller, who may be a poller, has made a goroutine runnable that others wait for. A poller that sleeps in its epoll
// keeps its processor for a while, and with it what waits to run there, so it lets such goroutines run first. It is a hint: without it
// they run later, when another processor has nothing to do, or at the latest after the 10 ms that the runtime gives one goroutine.
func Wake() {
	if !woken.Load() {
		woken.Store(true)
	}
}

// Woken reports whether Wake was called since it was called last.
func Woken() bool { return woken.Load() && woken.Swap(false) }

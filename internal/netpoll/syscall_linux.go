package netpoll

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poll is epoll_wait(2) that does not wait.
func Poll(epoll int, events []unix.EpollEvent) int { return Doze(epoll, events, 0) }

// Doze is epoll_wait(2) for so many milliseconds that the Go scheduler is not told of: the caller keeps its processor, and goes on as soon as
// the kernel has woken it. It returns 0 when the time is over, and when the runtime wants the goroutine to stop, for a
// collection of garbage, say: it sends the thread a signal, and another one if that came too early, until it is obeyed.
func Doze(epoll int, events []unix.EpollEvent, ms int) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), uintptr(ms), 0, 0)
	if errno != 0 { // EINTR
		return 0
	}
	return int(n)
}

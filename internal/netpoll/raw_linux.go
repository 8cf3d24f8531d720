//go:build !race

package netpoll

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of sockets that never make their caller wait are raw: the Go scheduler is not told, as it need not be. They are the
// ones that know only sockets, which have less to look at than read(2) and write(2).

// Read is recv(2) that does not wait.
func Read(fd int, b []byte) (int, error) {
	return raw(unix.SYS_RECVFROM, fd, b, unix.MSG_DONTWAIT)
}

// Write is send(2) that does not wait.
func Write(fd int, b []byte) (int, error) {
	return raw(unix.SYS_SENDTO, fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func raw(call uintptr, fd int, b []byte, flags uintptr) (int, error) {
	n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	if errno != 0 {
		return -1, errnoError(errno)
	}
	return int(n), nil
}

// errnoError is errno as an error, without an allocation for the usual one.
func errnoError(errno syscall.Errno) error {
	if errno == unix.EAGAIN {
		return unix.EAGAIN
	}
	return errno
}

//go:build !race

package netpoll

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of sockets that never make their caller wait are raw: the Go scheduler is not told, as it need not be.

// Read is read(2) of a socket in non-blocking mode.
func Read(fd int, b []byte) (int, error) {
	return raw(unix.SYS_READ, fd, b)
}

// Write is write(2) to a socket in non-blocking mode.
func Write(fd int, b []byte) (int, error) {
	return raw(unix.SYS_WRITE, fd, b)
}

func raw(call uintptr, fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
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

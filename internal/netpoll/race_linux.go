//go:build race

package netpoll

import "syscall"

// The race detector is to see who wrote what is read.

// Read is read(2) of a socket in non-blocking mode.
func Read(fd int, b []byte) (int, error) { return syscall.Read(fd, b) }

// Write is write(2) to a socket in non-blocking mode.
func Write(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }

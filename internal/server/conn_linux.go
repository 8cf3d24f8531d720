package server

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// hungUp reports whether the other side has closed its end, without reading.
func hungUp(nc net.Conn) bool {
	if k, ok := nc.(*socket); ok {
		gone := false
		err := k.control(func(fd int) error { gone = fdHungUp(fd); return nil })
		return gone || err != nil
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) { gone = fdHungUp(int(fd)) })
	return gone || err != nil
}

func fdHungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

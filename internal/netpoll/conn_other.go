//go:build !linux

package netpoll

import "net"

// Adopt returns the connection itself: there is no epoll here.
func Adopt(_ Poller, conn net.Conn) net.Conn { return conn }

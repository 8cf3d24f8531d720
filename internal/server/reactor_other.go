//go:build !linux

package server

import (
	"net"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/netpoll"
)

// socket and reactors are for Linux: here every connection has a goroutine of its own.
type socket struct{}

type reactors struct{ server atomic.Pointer[Server] }

func newReactors(hclog.Logger) *reactors { return &reactors{} }

func (*reactors) acceptor(_ *Server, l net.Listener) net.Listener { return l }
func reactorsSocket(net.Conn) *socket                             { return nil }
func (*reactors) close()                                          {}
func (*reactors) poller() netpoll.Poller                          { return nil }
func (*conn) attach()                                             {}
func (*socket) turnAway(string)                                   {}

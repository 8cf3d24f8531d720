//go:build !linux

package server

import (
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/netpoll"
)

// socket and reactors are for Linux: here every connection has a goroutine of its own.
type socket struct{}

type reactors struct{ server atomic.Pointer[Server] }

func newReactors(hclog.Logger) *reactors { return &reactors{} }

func (*reactors) adopt(*conn) bool       { return false }
func (*reactors) close()                 {}
func (*reactors) poller() netpoll.Poller { return nil }
func (*conn) attach()                    {}

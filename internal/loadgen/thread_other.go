//go:build !linux

package loadgen

import (
	"context"
	"errors"
	"time"
)

// thread needs epoll, which is Linux's.
type thread struct{ result Result }

var errLinux = errors.New("loadgen: it needs Linux: epoll, and sockets that block")

func newThread(*Config, int) (*thread, error) { return nil, errLinux }

func (*thread) run(context.Context, time.Time) error { return nil }
func (*thread) close()                               {}

// Lag needs what only Linux has.
func Lag(context.Context, string, string, time.Duration, time.Duration) (*Histogram, error) {
	return nil, errLinux
}

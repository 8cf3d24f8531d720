//go:build !linux

package loadgen

import (
	"context"
	"errors"
	"time"
)

// thread needs epoll, which is Linux's.
type thread struct{ result Result }

func newThread(*Config, int) (*thread, error) {
	return nil, errors.New("loadgen: it needs Linux: epoll, and clocks of other processes")
}

func (*thread) run(context.Context, time.Time) error { return nil }
func (*thread) close()                               {}

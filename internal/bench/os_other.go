//go:build !linux

package bench

import (
	"errors"
	"os/exec"
	"time"
)

var supported = errors.New("bench needs Linux: /proc, epoll, and clocks of other processes")

func spawn(*exec.Cmd) error                  { return supported }
func (*process) cpu() (time.Duration, error) { return 0, supported }
func settle(string) error                    { return supported }

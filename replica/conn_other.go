//go:build !linux

package replica

import (
	"net"
	"time"
)

// setUserTimeout does nothing where the kernel has no such option: the link's own limits hold without it.
func setUserTimeout(net.Conn, time.Duration) {}

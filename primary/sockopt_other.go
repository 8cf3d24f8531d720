//go:build !linux

package primary

import "net"

// tune does nothing where there is no TCP_USER_TIMEOUT; acks that stay away are noticed all the same.
func tune(net.Conn) error { return nil }

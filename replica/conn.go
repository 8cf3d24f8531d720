package replica

import (
	"context"
	"net"
	"time"
)

// dial connects to the address. The host name is resolved anew at each call: a primary that moved is found.
func dial(ctx context.Context, address string, userTimeout time.Duration) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: userTimeout / 2, Interval: userTimeout / 5, Count: 3}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	setUserTimeout(conn, userTimeout)
	return conn, nil
}

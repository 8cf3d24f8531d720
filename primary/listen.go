package primary

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// CheckPorts says whether each of n shards has a port, from base up, and otherwise names the range.
func CheckPorts(base, n int) error {
	if base < 1 || base+n-1 > 65535 {
		return fmt.Errorf("%d shards from port base %d need the ports %d-%d, which do not all lie within 1-65535: choose another --replication-port-base, or fewer shards",
			n, base, base, base+n-1)
	}
	return nil
}

// Listen opens the replication ports of n shards at host: shard i listens on base + i. Either all are open or none.
func Listen(host string, base, n int) (_ []net.Listener, err error) {
	if err := CheckPorts(base, n); err != nil {
		return nil, err
	}
	listeners := make([]net.Listener, 0, n)
	for i := range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(base+i)))
		if err != nil {
			errs := []error{fmt.Errorf("replication port of shard %d (of the range %d-%d): %w", i, base, base+n-1, err)}
			for _, open := range listeners {
				errs = append(errs, open.Close())
			}
			return nil, errors.Join(errs...)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// Package ports finds TCP ports that are free in a row. A node listens on one replication port a shard, base and up,
// so "any free port" is not enough: the whole range must be free.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// The ports that are tried lie below 32768, where Linux begins to hand out ports to outgoing connections: a port that
// was found free here is not taken a moment later by somebody who only dials.
const (
	lowest  = 10240
	highest = 32767
	tries   = 200
)

// Free returns a base such that, at this moment, base+offset+i can be listened on at host for every offset in offsets
// and every i in [0, n). The offset 0 need not be among them. It holds nothing: somebody else may take a port before
// the caller does.
func Free(host string, n int, offsets ...int) (int, error) {
	if len(offsets) == 0 {
		offsets = []int{0}
	}
	top := highest - n
	for _, o := range offsets {
		top = min(top, 65536-n-o)
	}
	if n < 1 || top < lowest {
		return 0, fmt.Errorf("no %d ports in a row between %d and 65535 for the offsets %v", n, lowest, offsets)
	}
	var last error
	for range tries {
		base := lowest + rand.IntN(top-lowest+1)
		if last = probe(host, base, n, offsets); last == nil {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no %d free ports in a row at %q after %d tries: %w", n, host, tries, last)
}

func probe(host string, base, n int, offsets []int) error {
	for _, o := range offsets {
		for i := range n {
			l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(base+o+i)))
			if err != nil {
				return err
			}
			l.Close()
		}
	}
	return nil
}

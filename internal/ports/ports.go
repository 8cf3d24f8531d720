// Package ports finds TCP ports that are free in a row. A node listens on one replication port a shard, base and up,
// so "any free port" is not enough: the whole range must be free.
package ports

import (
	"errors"
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
	base, release, err := Reserve(host, n, offsets...)
	if err != nil {
		return 0, err
	}
	return base, release()
}

// Reserve is Free with a hold on the ports: until release is called, no Free and no Reserve of any process on this machine
// gives one of them out, whether they are listened on or not. So a node can be stopped and started again on its ports. The
// hold is a UDP socket on each port, which is in nobody's way. release may be called once.
func Reserve(host string, n int, offsets ...int) (base int, release func() error, err error) {
	if len(offsets) == 0 {
		offsets = []int{0}
	}
	top := highest - n
	for _, o := range offsets {
		top = min(top, 65536-n-o)
	}
	if n < 1 || top < lowest {
		return 0, nil, fmt.Errorf("no %d ports in a row between %d and 65535 for the offsets %v", n, lowest, offsets)
	}
	var last error
	for range tries {
		base := lowest + rand.IntN(top-lowest+1)
		var h holds
		if h, last = probe(host, base, n, offsets); last == nil {
			return base, h.release, nil
		}
	}
	return 0, nil, fmt.Errorf("no %d free ports in a row at %q after %d tries: %w", n, host, tries, last)
}

// holds are the sockets that reserve ports.
type holds []net.PacketConn

func (h holds) release() error {
	var errs []error
	for _, c := range h {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// probe takes every port of the row, or none. A port that somebody has reserved is not even tried, so that its owner can
// listen at any time.
func probe(host string, base, n int, offsets []int) (h holds, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, h.release())
			h = nil
		}
	}()
	for _, o := range offsets {
		for i := range n {
			address := net.JoinHostPort(host, strconv.Itoa(base+o+i))
			held, err := net.ListenPacket("udp", address)
			if err != nil {
				return h, err
			}
			h = append(h, held)
			l, err := net.Listen("tcp", address)
			if err == nil {
				err = l.Close()
			}
			if err != nil {
				return h, err
			}
		}
	}
	return h, nil
}

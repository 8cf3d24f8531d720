package loadgen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// lagLimit is how long a write may take to be seen.
const lagLimit = 10 * time.Second

// Lag measures how long after the primary's reply to a SET a GET at the replica sees it: a SET, and then one GET after the
// other on a connection of its own, until one finds it; then a pause, and again, until d is over. Both connections block, so
// that nothing but the kernel stands between a reply and the clock.
func Lag(ctx context.Context, primary, replica string, pause, d time.Duration) (*Histogram, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var conns [2]*blocking
	for i, addr := range []string{primary, replica} {
		fd, err := dial(addr)
		if err == nil {
			limit := unix.NsecToTimeval(int64(lagLimit))
			err = errors.Join(unix.SetNonblock(fd, false), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
		}
		if err != nil {
			return nil, fmt.Errorf("loadgen: %s: %w", addr, err)
		}
		defer unix.Close(fd)
		conns[i] = &blocking{fd: fd, buf: make([]byte, 4096)}
	}
	h := &Histogram{}
	get := []byte("*2\r\n$3\r\nGET\r\n$" + strconv.Itoa(len(LagKey)) + "\r\n" + LagKey + "\r\n")
	began := time.Now()
	for n := 1_000_000_000; time.Since(began) < d; n++ { // as many digits every time
		value := strconv.Itoa(n)
		set := "*3\r\n$3\r\nSET\r\n$" + strconv.Itoa(len(LagKey)) + "\r\n" + LagKey + "\r\n$" + strconv.Itoa(len(value)) + "\r\n" + value + "\r\n"
		if err := conns[0].ask([]byte(set), "+OK\r\n"); err != nil {
			return nil, fmt.Errorf("loadgen: %s: %w", primary, err)
		}
		at := time.Now()
		want := "$" + strconv.Itoa(len(value)) + "\r\n" + value + "\r\n"
		for {
			reply, err := conns[1].reply(get)
			if err != nil {
				return nil, fmt.Errorf("loadgen: %s: %w", replica, err)
			}
			lag := time.Since(at)
			if string(reply) == want {
				h.Record(lag)
				break
			}
			if reply[0] == '-' || lag > lagLimit {
				return nil, fmt.Errorf("loadgen: %s: after %s GET answers %.80q, want %s", replica, lag, reply, value)
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		time.Sleep(pause)
	}
	return h, nil
}

// blocking is a connection of one small request at a time.
type blocking struct {
	fd  int
	buf []byte
}

func (b *blocking) ask(request []byte, want string) error {
	reply, err := b.reply(request)
	if err == nil && string(reply) != want {
		err = fmt.Errorf("%w: %.80q", errReply, reply)
	}
	return err
}

// reply sends a request and reads its reply, which must be small.
func (b *blocking) reply(request []byte) ([]byte, error) {
	if n, err := unix.Write(b.fd, request); err != nil || n != len(request) {
		return nil, errors.Join(err, fmt.Errorf("%d of %d bytes were sent", n, len(request)))
	}
	var c counter
	for have := 0; have < len(b.buf); {
		n, err := unix.Read(b.fd, b.buf[have:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.ErrUnexpectedEOF
		}
		replies, err := c.count(b.buf[have : have+n])
		if have += n; replies > 0 || errors.Is(err, errReply) {
			return b.buf[:have], nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("a reply of more than %d bytes", len(b.buf))
}

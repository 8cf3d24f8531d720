package primary

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/wire"
)

// sleeper is a connection on which nothing comes or goes until its waits are over, each of which may take longer than it was to: this
// process sleeps.
type sleeper struct {
	net.Conn
	waits []time.Duration
}

func (s *sleeper) wait() error {
	if len(s.waits) == 0 {
		return nil
	}
	time.Sleep(s.waits[0])
	s.waits = s.waits[1:]
	return os.ErrDeadlineExceeded
}

func (s *sleeper) Read(b []byte) (int, error)     { return s.moved(1, s.wait()) }
func (s *sleeper) Write(b []byte) (int, error)    { return s.moved(len(b), s.wait()) }
func (*sleeper) SetReadDeadline(time.Time) error  { return nil }
func (*sleeper) SetWriteDeadline(time.Time) error { return nil }
func (*sleeper) moved(n int, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return n, nil
}

// lender is a sleeper that can be lent.
type lender struct{ sleeper }

func (l *lender) TryRead([]byte) (int, error) {
	if len(l.waits) > 0 {
		return 0, netpoll.ErrWouldBlock
	}
	return 1, nil
}
func (l *lender) Lend(func() bool, time.Duration) { _ = l.wait() }
func (*lender) More() bool                        { return false }
func (*lender) TryWrite([]byte) (int, error)      { return 0, nil }

// What this process slept through, or its machine, is neither silence of the replica nor a write that is stuck.
func TestSleepIsNoSilence(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		waits []time.Duration
		given bool // up
	}{
		{[]time.Duration{3 * s, 3 * s}, false},
		{[]time.Duration{3 * s, 3 * s, 3 * s}, true},
		{[]time.Duration{time.Hour, time.Minute}, false},
		{[]time.Duration{time.Hour, 3 * s, 3 * s, 3 * s}, true},
	} {
		try := func(what string, limit error, f func() error) {
			t.Helper()
			synctest.Test(t, func(t *testing.T) {
				if err := f(); errors.Is(err, limit) != c.given || err != nil && !c.given {
					t.Errorf("%s, waits of %v: %v", what, c.waits, err)
				}
			})
		}
		try("read", errSilent, func() error {
			return newLink(&sleeper{waits: c.waits}).fill(time.Time{})
		})
		try("write", errStuck, func() error {
			var waits []time.Duration // the short ones in the steps that writes wait in
			for _, w := range c.waits {
				if w == stretch {
					waits = append(waits, netpoll.WriteStep, netpoll.WriteStep, netpoll.WriteStep)
				} else {
					waits = append(waits, w)
				}
			}
			return newLink(&sleeper{waits: waits}).write(wire.AppendControl(nil, wire.KindKeepalive, nil))
		})
		try("lent", errSilent, func() error {
			conn := &lender{sleeper{waits: append(c.waits[:len(c.waits):len(c.waits)], 3*s)}} // it looks once more before it judges
			l := newLink(conn)
			l.lender = conn
			for {
				if err := l.listen(nil); err != nil || l.to > 0 {
					return err
				}
			}
		})
	}
}

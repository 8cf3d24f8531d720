package netpoll

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowly is a peer that takes a piece each so often, and writes how long it goes on to do so.
type slowly struct {
	piece int
	every time.Duration
	bytes int
}

func (s slowly) read(t *testing.T, conn net.Conn) {
	for buf := make([]byte, s.piece); s.bytes > 0; s.bytes -= s.piece {
		time.Sleep(s.every)
		if _, err := io.ReadFull(conn, buf); err != nil {
			t.Error(err)
		}
	}
}

// TestWriteAll: a peer that takes something now and then has all the time it wants, and one that takes nothing has the limit, or less
// once the link is to end (pitfalls 29, 31).
func TestWriteAll(t *testing.T) {
	const size, limit, hurry = 100_000, 9 * time.Second, 500 * time.Millisecond
	for name, c := range map[string]struct {
		peer         slowly
		ends         time.Duration // the link, then
		stuck, after time.Duration
	}{
		"slow":               {peer: slowly{1000, 5 * time.Second, size}, after: 500 * time.Second},
		"deaf":               {stuck: limit, after: limit},
		"deaf after a while": {peer: slowly{1000, 5 * time.Second, size / 2}, stuck: limit, after: 250*time.Second + limit},
		"ended before":       {stuck: hurry, after: hurry},
		"ended meanwhile":    {ends: 3300 * time.Millisecond, stuck: hurry, after: 3300*time.Millisecond + hurry},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				defer ours.Close()
				done := make(chan struct{})
				// It ends with what it was to take, which is less than all only where the write fails.
				go func() { defer close(done); c.peer.read(t, theirs) }()
				var ended atomic.Bool
				ended.Store(name == "ended before")
				if c.ends > 0 {
					time.AfterFunc(c.ends, func() {
						ended.Store(true)
						_ = ours.SetWriteDeadline(time.Now().Add(hurry))
					})
				}
				begun := time.Now()
				stuck, err := WriteAll(ours, make([]byte, size), limit, hurry, ended.Load)
				took := time.Since(begun)
				if stuck != c.stuck || took < c.after || took > c.after+WriteStep || (err == nil) != (c.stuck == 0) {
					t.Errorf("stuck for %v, %v, after %v; want %v after %v", stuck, err, took, c.stuck, c.after)
				}
				if c.stuck > 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the error is %v", err)
				}
				<-done
			})
		})
	}
}

// A connection that is closed, by either side, before or in the middle of it, is not stuck.
func TestWriteAllClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wait := range []time.Duration{0, 3300 * time.Millisecond} {
			for side := range 2 {
				ends := make([]net.Conn, 2)
				ends[0], ends[1] = net.Pipe()
				if wait == 0 {
					ends[side].Close()
				} else {
					time.AfterFunc(wait, func() { ends[side].Close() })
				}
				stuck, err := WriteAll(ends[0], []byte("x"), 9*time.Second, time.Second, func() bool { return false })
				if stuck != 0 || !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("side %d, closed after %v: stuck for %v, %v", side, wait, stuck, err)
				}
				ends[1-side].Close()
			}
		}
	})
}

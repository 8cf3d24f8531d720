package backlog

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// Every byte that was appended is read back by its address, over segments and after a new Open, which has addresses of its own;
// what was never appended, or was trimmed, is refused, and so is everything once the log is closed.
func TestReadAt(t *testing.T) {
	o := options(vfs.NewMem())
	o.Keep = 1
	l := create(t, o, 0)
	rng := rand.New(rand.NewPCG(1, 1))
	type placed struct {
		addr   int64
		frames []byte
	}
	var all []placed
	readAll := func() {
		t.Helper()
		for i, p := range all {
			from := rng.IntN(len(p.frames))
			got := make([]byte, rng.IntN(len(p.frames)-from+1))
			if n, err := l.ReadAt(got, p.addr+int64(from)); err != nil || n != len(got) || !bytes.Equal(got, p.frames[from:from+n]) {
				t.Fatalf("append %d: %d bytes from address %d on: %d other ones (%v)", i, len(got), p.addr+int64(from), n, err)
			}
		}
	}
	for range 30 {
		f := add(t, l, 1+rng.IntN(3), rng.IntN(1500))
		all = append(all, placed{l.End() - int64(len(f)), f})
		readAll()
	}
	if segments := len(l.mu.segments); segments < 4 {
		t.Fatalf("%d segments, which is too few for this test", segments)
	}
	if _, err := l.ReadAt(make([]byte, 1), l.End()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("reading behind the end: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ReadAt(make([]byte, 1), all[0].addr); !errors.Is(err, ErrClosed) {
		t.Fatalf("reading from a closed log: %v", err)
	}

	l = reopen(t, o)
	all = nil
	if err := l.ReplayAt(0, func(f wire.Frame, addr int64) error {
		all = append(all, placed{addr, bytes.Clone(f.Raw)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	readAll()
	f := add(t, l, 1, 100)
	all = append(all, placed{l.End() - int64(len(f)), f})
	readAll()
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	l.Trim(l.Next(), 0, false)
	if _, err := l.ReadAt(make([]byte, 1), all[0].addr); !errors.Is(err, ErrEvicted) {
		t.Fatalf("reading what was trimmed: %v", err)
	}
	all = all[len(all)-1:]
	readAll()
}

// Others read while the log grows, is synced and trimmed: they get the bytes, or are told that these were trimmed.
func TestReadAtBeside(t *testing.T) {
	o := options(vfs.NewMem())
	o.Keep = 1
	l := create(t, o, 0)
	var mu sync.Mutex
	var addr int64
	var frame []byte
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var reads, evicted int
	// The reader, started here, ends when stop is closed; the test waits for it.
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			at, want := addr, frame
			mu.Unlock()
			got := make([]byte, len(want))
			switch _, err := l.ReadAt(got, at); {
			case len(want) == 0:
			case errors.Is(err, ErrEvicted):
				evicted++
			case err != nil || !bytes.Equal(got, want):
				t.Errorf("%d bytes at address %d: %v", len(want), at, err)
				return
			default:
				reads++
			}
		}
	})
	for i := range 2000 {
		f := add(t, l, 1, 200)
		if i%7 == 0 {
			mu.Lock()
			addr, frame = l.End()-int64(len(f)), f
			mu.Unlock()
		}
		if i%50 == 49 {
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			l.Trim(l.Next(), 0, false)
		}
	}
	close(stop)
	wg.Wait()
	if reads == 0 {
		t.Errorf("nothing was read, %d reads were too late", evicted)
	}
}

package backlog

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// grown makes a log of several segments and returns it with its frames, by first offset.
func grown(t *testing.T, o Options) (*Log, [][]byte) {
	t.Helper()
	l := create(t, o, 7)
	var frames [][]byte
	for i := range 40 {
		frames = append(frames, add(t, l, 1+i%3, 100+i*20))
	}
	return l, frames
}

// A fork at any boundary holds what the log holds before it, goes on there in a way of its own, and outlives a restart;
// the log is as it was, whatever is appended to the fork.
func TestFork(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	l, frames := grown(t, o)
	whole := bytes.Join(frames, nil)
	next, bytesBefore := uint64(7), 0
	for i := 0; i <= len(frames); i++ {
		fork := o
		fork.Dir = fmt.Sprint("fork-", i)
		f, err := l.Fork(fork, next)
		if err != nil {
			t.Fatalf("at %d: %v", next, err)
		}
		check(t, f)
		if b := f.Bounds(); b.Oldest != 7 || b.Next != next || b.Durable != next || b.Published != next {
			t.Fatalf("a fork at %d has the bounds %+v", next, b)
		}
		if got := drain(t, f, 7, 0); !bytes.Equal(got, whole[:bytesBefore]) {
			t.Fatalf("a fork at %d holds %d bytes, want %d", next, len(got), bytesBefore)
		}
		own := add(t, f, 2, 3000)
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if got := drain(t, l, 7, 0); !bytes.Equal(got, whole) {
			t.Fatalf("a fork at %d changed the log", next)
		}
		again := reopen(t, fork)
		if got := drain(t, again, 7, 0); !bytes.Equal(got, append(whole[:bytesBefore:bytesBefore], own...)) {
			t.Fatalf("a fork at %d lost something", next)
		}
		if i < len(frames) {
			next, bytesBefore = next+1+uint64(i%3), bytesBefore+len(frames[i])
		}
	}
	if in, err := Inspect(fs, o.Dir, o.Shard, false); err != nil || in.Corrupt != nil || in.Next != l.Next() {
		t.Fatalf("the log that was forked: %+v, %v", in, err)
	}
}

// What cannot be forked is said, and the log goes on.
func TestForkRefuses(t *testing.T) {
	o := options(vfs.NewMem())
	l, _ := grown(t, o)
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	l.Trim(l.Published(), 0, false)
	oldest := l.Bounds().Oldest
	if oldest == 7 {
		t.Fatal("nothing was trimmed")
	}
	for _, c := range []struct {
		next uint64
		want error
	}{{oldest - 1, ErrEvicted}, {l.Next() + 1, ErrFuture}, {l.Next() - 1, nil}, {oldest, nil}} {
		fork := o
		fork.Dir = fmt.Sprint("fork-", c.next)
		f, err := l.Fork(fork, c.next)
		if errors.Is(err, ErrMisaligned) {
			continue // the last frame may hold several mutations
		}
		if !errors.Is(err, c.want) {
			t.Errorf("at %d: %v, want %v", c.next, err, c.want)
		}
		if err != nil {
			continue
		}
		if b := f.Bounds(); b.Oldest != oldest || b.Next != c.next {
			t.Errorf("a fork at %d has the bounds %+v", c.next, b)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	add(t, l, 1, 10)
}

// Each file operation of a fork fails once. The log is unharmed, and a fork that was made is whole after a power loss.
func TestForkFaults(t *testing.T) {
	for k := int64(1); ; k++ {
		mem := vfs.NewCrashableMem()
		var count atomic.Int64
		var armed atomic.Bool
		injected := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && op.Kind != errorfs.OpFileClose && count.Add(1) == k {
				return errorfs.ErrInjected
			}
			return nil
		}))
		o := options(injected)
		l, frames := grown(t, o)
		fork := o
		fork.Dir = "fork"
		next := l.Next() - 30
		for {
			if ok, err := l.Boundary(next); err != nil || ok {
				break
			}
			next++
		}
		armed.Store(true)
		f, err := l.Fork(fork, next)
		armed.Store(false)
		if err != nil && !errors.Is(err, errorfs.ErrInjected) {
			t.Fatalf("fault at operation %d: %v", k, err)
		}
		if err == nil {
			want := drain(t, f, 7, 0)
			clone := mem.CrashClone(vfs.CrashCloneCfg{})
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			fork.FS, fork.PowerLost = clone, true
			if got := drain(t, reopen(t, fork), 7, 0); !bytes.Equal(got, want) {
				t.Fatalf("fault at operation %d: a power loss took %d of %d bytes from a fork that was made", k, len(want)-len(got), len(want))
			}
		}
		if l.failed() == nil {
			if got := drain(t, l, 7, 0); !bytes.Equal(got, bytes.Join(frames, nil)) {
				t.Fatalf("fault at operation %d: the log has changed", k)
			}
		}
		if count.Load() < k {
			return // every operation had its turn
		}
	}
}

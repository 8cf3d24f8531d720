package backlog

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A disk that is full takes half of a write. The append fails recognisably, the log is as it was, a shorter append goes
// through later, and no frame of the failed one comes back behind it, whatever the file system can do: truncate (a real
// one) or not (the one in memory).
func TestDiskFull(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		t.Run(name, func(t *testing.T) {
			full, syncs := false, 0
			o := options(&hookFS{FS: fs, sync: func(string) error { syncs++; return nil }, write: func(_ string, b []byte) (int, error) {
				if full && len(bytes.Trim(b, "\x00")) > 0 { // overwriting with zeros takes no room
					return len(b) - 40, syscall.ENOSPC
				}
				return len(b), nil
			}})
			if name == "disk" {
				o.Dir = t.TempDir() + "/log"
			}
			l := create(t, o, 0)
			want := add(t, l, 3, 300)
			first := l.Next()
			one, two := build(first, 2, 100), build(first+2, 2, 100)
			full = true
			for i := range 3 {
				before := syncs
				err := l.Append(bytes.Join([][]byte{one, two, build(first+4, 1, 900)}, nil), first, first+5)
				if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrBroken) || l.Next() != first {
					t.Fatalf("%v, next is %d", err, l.Next())
				}
				if i == 0 && syncs == before { // later ones fail in the roll already
					t.Fatal("what was cut off may come back after a power loss")
				}
				if err := l.Append(build(first, 1, 5000), first, first+1); !errors.Is(err, syscall.ENOSPC) { // a roll, too
					t.Fatal(err)
				}
				check(t, l)
			}
			full = false
			want = append(want, one...)
			if err := l.Append(one, first, first+2); err != nil {
				t.Fatal(err)
			}
			l.Publish(first + 2)
			for range 2 {
				if got := drain(t, l, 0, 1000); !bytes.Equal(got, want) || l.Next() != first+2 {
					t.Fatalf("read %d bytes up to %d, want %d up to %d", len(got), l.Next(), len(want), first+2)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = reopen(t, o)
			}
		})
	}
}

// A roll whose rename is done and reported as failed leaves a segment of that name. Whatever is appended next, small
// enough for the old segment or not, begins there, so that the two never overlap.
func TestRollThatFailedAfterAll(t *testing.T) {
	for _, size := range []int{10, 4000} {
		hook := &hookFS{FS: vfs.NewMem()}
		o := options(hook)
		l := create(t, o, 0)
		want := add(t, l, 1, 1000)
		hook.rename = func() error { return syscall.EIO }
		for range 2 {
			if err := l.Append(build(1, 1, 4000), 1, 2); !errors.Is(err, syscall.EIO) || errors.Is(err, ErrBroken) {
				t.Fatal(err)
			}
			check(t, l)
		}
		hook.rename = nil
		want = append(want, add(t, l, 1, size)...)
		for range 2 {
			if got := drain(t, l, 0, 0); !bytes.Equal(got, want) || len(l.mu.segments) != 2 {
				t.Fatalf("%d bytes in %d segments, want %d", len(got), len(l.mu.segments), len(want))
			}
			l.Close()
			l = reopen(t, o)
		}
	}
}

// An append that fails and cannot be undone breaks the log; so does a sync that fails, for good. Opening it again finds
// everything that was appended.
func TestBroken(t *testing.T) {
	t.Run("append", func(t *testing.T) {
		fail := false
		mem := vfs.NewMem()
		o := options(&hookFS{FS: mem, write: func(_ string, b []byte) (int, error) {
			if fail {
				return len(b) / 2, syscall.EIO
			}
			return len(b), nil
		}, sync: func(string) error {
			if fail {
				return syscall.EIO
			}
			return nil
		}})
		l := create(t, o, 0)
		want := add(t, l, 3, 300)
		fail = true
		for range 2 {
			if err := l.Append(build(3, 1, 100), 3, 4); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			if err := l.Sync(); !errors.Is(err, ErrBroken) {
				t.Fatal(err)
			}
		}
		fail = false
		if err := l.Append(build(3, 1, 100), 3, 4); !errors.Is(err, ErrBroken) {
			t.Fatalf("a broken log took an append: %v", err)
		}
		if got := drain(t, l, 0, 1000); !bytes.Equal(got, want) {
			t.Fatal("a broken log cannot be read")
		}
		l.Close()
		l = reopen(t, o)
		if got := drain(t, l, 0, 1000); !bytes.Equal(got, want) {
			t.Fatal("a broken log lost something")
		}
	})
	t.Run("sync", func(t *testing.T) {
		fail := false
		mem := vfs.NewCrashableMem()
		o := options(&hookFS{FS: mem, sync: func(string) error {
			if fail {
				return syscall.EIO
			}
			return nil
		}})
		l := create(t, o, 0)
		add(t, l, 3, 300)
		fail = true
		if err := l.Sync(); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		fail = false
		if err := l.Sync(); !errors.Is(err, ErrBroken) {
			t.Fatalf("a second sync after a failed one said: %v", err)
		}
		if l.Durable() != 0 {
			t.Fatalf("durable is %d after a failed sync", l.Durable())
		}
	})
}

// What is not the next frames is refused, and nothing of it is written.
func TestAppendRefusesOtherBytes(t *testing.T) {
	l := create(t, options(vfs.NewMem()), 10)
	good := build(10, 2, 50)
	damaged := bytes.Clone(good)
	damaged[5] ^= 1
	for name, c := range map[string]struct {
		b           []byte
		first, next uint64
	}{
		"nothing":         {nil, 10, 10},
		"no frames":       {nil, 10, 12},
		"a gap":           {build(11, 2, 50), 11, 13},
		"a repeat":        {build(9, 2, 50), 9, 11},
		"a wrong end":     {good, 10, 13},
		"a short frame":   {good[:len(good)-1], 10, 12},
		"a bad header":    {damaged, 10, 12},
		"a hole in it":    {append(bytes.Clone(good), build(13, 1, 1)...), 10, 14},
		"another's first": {build(11, 2, 50), 10, 12},
	} {
		if err := l.Append(c.b, c.first, c.next); !errors.Is(err, ErrAppend) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b := l.Bounds(); b.Next != 10 || b.Bytes != SegmentHeaderSize {
		t.Errorf("bounds are %+v", b)
	}
}

// Appending, publishing and reading allocate nothing in the steady state.
func TestNoAllocation(t *testing.T) {
	o := options(vfs.Default)
	o.Dir, o.Memory, o.SegmentBytes, o.Disk = t.TempDir()+"/log", 1<<20, 1<<30, 8<<30
	l := create(t, o, 0)
	fill := func(n int) {
		for range n {
			next := l.Next() + 3
			l.Append(stamp(next-3), next-3, next)
			l.Publish(next)
		}
	}
	fill(5000)
	frames := make([][]byte, 0, 4000)
	for i := range cap(frames) {
		frames = append(frames, build(l.Next()+3*uint64(i), 3, 200))
	}
	i := 0
	r, err := l.NewReader(l.Next())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx := t.Context()
	if n := testing.AllocsPerRun(1500, func() {
		next := l.Next() + 3
		if err := l.Append(frames[i], next-3, next); err != nil {
			t.Fatal(err)
		}
		i++
		l.Publish(next)
		if _, err := r.Next(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("an append, a publish and a read from memory allocate %v times", n)
	}
	slow, err := l.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if n := testing.AllocsPerRun(500, func() {
		if _, err := slow.Next(ctx, 2000); err != nil || slow.disk.segment == nil {
			t.Fatalf("%v, at %d", err, slow.next)
		}
	}); n != 0 {
		t.Errorf("a read from the disk allocates %v times", n)
	}
}

func stamp(first uint64) []byte { return build(first, 3, 200) }

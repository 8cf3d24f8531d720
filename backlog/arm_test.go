package backlog

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A reader that was armed is called once, behind a publication or when the log is closed, and is not armed while there is something to
// hand out.
func TestArm(t *testing.T) {
	l := create(t, options(vfs.NewMem()), 0)
	r := newReader(t, l, 0)
	calls := 0
	arm := func() bool { return r.Arm(func() { calls++ }) }
	next := func(want uint64) {
		t.Helper()
		for r.next < want {
			if _, err := r.Next(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		if !arm() {
			t.Fatal("nothing is there, and it was not armed")
		}
	}
	if err := l.Append(build(0, 1, 10), 0, 1); err != nil {
		t.Fatal(err)
	}
	if calls != 0 {
		t.Fatal("called before the publication")
	}
	l.Publish(1)
	add(t, l, 1, 10)
	if calls != 1 {
		t.Fatalf("called %d times", calls)
	}
	if arm() {
		t.Fatal("armed with two mutations to hand out")
	}
	next(2)
	if !arm() {
		t.Fatal("not armed again")
	}
	add(t, l, 1, 10)
	next(3)
	if calls != 2 || !arm() {
		t.Fatalf("called %d times", calls)
	}
	gone := newReader(t, l, 3)
	gone.Arm(func() { t.Error("a reader that was closed was called") })
	gone.Close()
	if n := len(l.mu.waiting); n != 1 {
		t.Fatalf("%d readers wait", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if calls != 3 {
		t.Fatalf("called %d times: the end of the log was not told", calls)
	}
	if arm() {
		t.Fatal("armed behind the end")
	}
	if _, err := r.Next(t.Context(), 0); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// What is published and held is told to readers that wait, armed or in Next, by Announce or the next Publish, once; who looks sees it.
func TestPublishHeld(t *testing.T) {
	l := create(t, options(vfs.NewMem()), 0)
	next := uint64(0)
	hold := func() bool {
		t.Helper()
		if err := l.Append(build(next, 1, 10), next, next+1); err != nil {
			t.Fatal(err)
		}
		next++
		return l.PublishHeld(next)
	}
	if hold() {
		t.Fatal("nobody waits, and somebody has to announce it")
	}
	r := newReader(t, l, 1)
	calls := 0
	for _, tell := range []func(){l.Announce, func() { add(t, l, 1, 10); next++ }} {
		calls = 0
		if !r.Arm(func() { calls++ }) {
			t.Fatal("not armed")
		}
		if !hold() || hold() {
			t.Fatal("the first one is to be announced, and the second one with it")
		}
		if calls > 0 {
			t.Fatal("told of what is held")
		}
		if late := newReader(t, l, next-2); late.Arm(func() {}) {
			t.Fatal("a reader that comes now does not see what is held")
		}
		tell()
		l.Announce()
		if calls != 1 {
			t.Fatalf("called %d times", calls)
		}
		for r.next < next {
			if _, err := r.Next(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// However publications that are held, announcements and readers meet, no reader waits for what was announced.
func TestAnnouncementsReachEveryReader(t *testing.T) {
	const n, readers = 3000, 3
	l := create(t, options(vfs.NewMem()), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var done sync.WaitGroup
	for i := range readers {
		r := newReader(t, l, 0)
		// A reader, which ends when it has read everything; the test waits for it.
		done.Go(func() {
			wake := make(chan struct{}, 1)
			for r.next < n {
				if i == 0 && r.Arm(func() { wake <- struct{}{} }) {
					select {
					case <-wake:
					case <-ctx.Done():
					}
				}
				if _, err := r.Next(ctx, 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var publishing sync.Mutex
	next := uint64(0)
	for i := range 2 {
		// One that announces at once, and one that does now and then; they end with the last offset, and the test waits for them.
		done.Go(func() {
			for end := false; !end; {
				publishing.Lock()
				at := next
				if end = at == n; !end {
					if err := l.Append(build(next, 1, 10), next, next+1); err != nil {
						t.Error(err)
					}
					next++
					l.PublishHeld(next)
				}
				publishing.Unlock()
				if i == 0 || at%5 == 0 || end {
					l.Announce()
				}
			}
		})
	}
	done.Wait()
}

// Small tells what is there by its size, wherever the reader is in its slab, and never calls small what only the disk has.
func TestSmall(t *testing.T) {
	l := create(t, options(vfs.NewMem()), 0)
	r := newReader(t, l, 0)
	inMemory := 0
	for n := range 300 {
		size := len(add(t, l, 1+n%3, 5+n%40))
		if n%4 == 0 {
			size += len(add(t, l, 1, 20))
		}
		if r.Small(size - 1) {
			t.Fatalf("round %d: %d bytes are small within %d", n, size, size-1)
		}
		if r.Small(size) {
			inMemory++
			if run, err := r.Next(t.Context(), minRun); err != nil || len(run.Bytes) != size || run.Next != l.Published() {
				t.Fatalf("round %d: %d bytes up to %d, %v; want all %d up to %d", n, len(run.Bytes), run.Next, err, size, l.Published())
			}
		}
		for r.next < l.Published() { // it began another slab in the middle
			if _, err := r.Next(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if inMemory < 250 {
		t.Fatalf("%d of 300 were small", inMemory)
	}
	late := newReader(t, l, l.Bounds().Oldest)
	if l.Bounds().Oldest >= l.Bounds().MemoryFirst || late.Small(1<<30) {
		t.Fatal("what memory does not have is small")
	}
}

package backlog

import (
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Segments go one at a time, oldest first, and the directory is synced after each, so that a power loss leaves no hole
// between them. A file that cannot be removed is counted and tried again, and nothing newer goes before it.
func TestTrimOrder(t *testing.T) {
	var ops []string
	var refuse error
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpRemove:
			ops = append(ops, op.Path)
			return refuse
		case errorfs.OpFileSync:
			ops = append(ops, "sync "+op.Path)
		}
		return nil
	}))
	o := options(fs)
	o.Keep = 1
	l := create(t, o, 0)
	for range 5 {
		add(t, l, 1, 3500)
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	before := l.Bounds()
	ops, refuse = nil, errors.New("refused")
	for range 2 {
		l.Trim(3, 0, false)
	}
	if b := l.Bounds(); b.Oldest != 3 || b.Bytes != before.Bytes {
		t.Fatalf("trimmed to %+v from %+v, no file was removed", b, before)
	}
	refuse = nil
	l.Trim(3, 0, false)
	first := "log/" + segmentName(0)
	want := []string{first, first, first, "sync log", "log/" + segmentName(1), "sync log", "log/" + segmentName(2), "sync log"}
	if !slices.Equal(ops, want) {
		t.Fatalf("operations %q, want %q", ops, want)
	}
	if b := l.Bounds(); b.Bytes >= before.Bytes || b.Oldest != 3 {
		t.Fatalf("after the removal %+v", b)
	}
	check(t, l)
	l.Close()
	if l = reopen(t, o); l.Bounds().Oldest != 3 {
		t.Fatalf("reopened with %+v", l.Bounds())
	}
}

// Limits change while the log is open, and a slot that lags is served until the cap says no (pitfall 37).
func TestLimitsAreLive(t *testing.T) {
	o := options(vfs.NewMem())
	l := create(t, o, 0)
	for range 12 {
		add(t, l, 1, 3500)
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		keep, disk int64
		hasSlot    bool
		oldest     uint64
	}{
		{o.Keep, o.Disk, true, 0},
		{o.Keep, 30 << 10, true, 5}, // the cap holds with room for one more segment
		{20 << 10, 30 << 10, false, 6},
		{0, 30 << 10, false, 11},
	} {
		if err := l.SetLimits(c.keep, c.disk); err != nil {
			t.Fatal(err)
		}
		l.Trim(l.Next(), 0, c.hasSlot)
		if got := l.Bounds(); got.Oldest != c.oldest || got.Bytes > max(c.disk-o.SegmentBytes, c.keep+o.SegmentBytes) {
			t.Fatalf("keep %d, disk %d, slot %t: %+v, want oldest %d", c.keep, c.disk, c.hasSlot, got, c.oldest)
		}
		check(t, l)
	}
	if err := l.SetLimits(2, 1); err == nil {
		t.Fatal("a disk limit below the keep was taken")
	}
}

package shard_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
)

// A primary's shard trims by itself as soon as it is open, and its slots are loaded later, when the slowest shard has
// recovered: until somebody can say what slots need, nothing within the disk budget goes (pitfall 37).
func TestNothingIsTrimmedBeforeTheSlotsAreKnown(t *testing.T) {
	o := options(vfs.NewMem())
	o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = 4<<10, 8<<10, 1<<20
	s := open(t, o)
	for i := range 40 {
		mustWrite(t, s, fmt.Sprint("k", i), strings.Repeat("v", 2000))
	}
	if err := s.Use(func(m shard.StateMachine) error { return m.Flush() }); err != nil { // recovery needs none of it
		t.Fatal(err)
	}
	if err := s.Log().Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	if oldest := s.Log().Bounds().Oldest; oldest != 0 {
		t.Fatalf("the log begins at %d: a slot at 0 lost its promise before it was known", oldest)
	}
	s.SetRetention(func() (uint64, bool) { return 0, false })
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	if oldest := s.Log().Bounds().Oldest; oldest == 0 {
		t.Fatal("without slots the log is trimmed to the keep")
	}
}

// A replica has no slots, so nobody will ever say anything.
func TestAReplicaTrimsToTheKeep(t *testing.T) {
	o := options(vfs.NewMem())
	o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = 4<<10, 8<<10, 1<<20
	s := open(t, o)
	for i := range 40 {
		mustWrite(t, s, fmt.Sprint("k", i), strings.Repeat("v", 2000))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Writable = false
	again := open(t, o)
	if err := again.Trim(); err != nil {
		t.Fatal(err)
	}
	if oldest := again.Log().Bounds().Oldest; oldest == 0 {
		t.Fatal("a replica's log is not trimmed")
	}
}

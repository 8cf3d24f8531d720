package shard_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
)

func demote(t *testing.T, s *shard.Shard) {
	t.Helper()
	if err := s.Demote(); err != nil {
		t.Fatal(err)
	}
}

// A shard takes what its role says and nothing else, and a role outlives a restart. Pitfall 28: a frame of the old primary
// that was queued behind a promotion lands nowhere.
func TestRoles(t *testing.T) {
	source := open(t, options(vfs.NewMem()))
	for i := range 5 {
		mustWrite(t, source, fmt.Sprint("k", i), "v")
	}
	demote(t, source)
	demote(t, source) // twice is once
	if _, err := write(t, source, "k", "late"); !errors.Is(err, shard.ErrFollows) {
		t.Fatalf("a shard that follows took a write: %v", err)
	}
	before := source.Lineage()
	at, err := source.Promote()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := source.Promote(); err != nil || again != at {
		t.Fatalf("promoted twice: %s and %s, %v", at, again, err)
	}
	if at.Offset != 5 || !source.Lineage().Contains(before.At(5), 5) || before.Has(at.Generation) {
		t.Fatalf("promoted at %s, from %s to %s", at, before, source.Lineage())
	}
	queued := frames(t, source)
	if err := source.Ingest(queued, 5, 10); !errors.Is(err, shard.ErrWritable) {
		t.Fatalf("a frame of the old primary landed: %v", err)
	}
	if err := source.Install("/nowhere", at, source.Lineage()); !errors.Is(err, shard.ErrWritable) {
		t.Fatalf("a snapshot of the old primary landed: %v", err)
	}
	mustWrite(t, source, "k", "new")
	if source.Position().Offset != 6 {
		t.Fatalf("at %s", source.Position())
	}
}

// A shard that never had data cannot become anybody's primary.
func TestPromoteWithoutHistory(t *testing.T) {
	o := options(vfs.NewMem())
	o.Writable = false
	s := open(t, o)
	if at, err := s.Promote(); err == nil || s.Writable() {
		t.Fatalf("promoted at %s", at)
	}
}

// A promotion is durable when it returns: after a power loss the shard goes on in its generation or in one behind it, and
// what the generation builds on is there. A crash before that leaves a shard that follows.
func TestPromotionOutlivesPowerLoss(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := options(mem)
	s := open(t, o)
	mustWrite(t, s, "a", "1")
	demote(t, s)
	at, err := s.Promote()
	if err != nil {
		t.Fatal(err)
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	o.FS, o.Open, o.BootID = crashed, factory(crashed, new(atomic.Bool)), "boot-2"
	again := open(t, o)
	if p := again.Position(); p.Offset < at.Offset || !again.Lineage().Has(at.Generation) {
		t.Fatalf("promoted at %s, after the power loss at %s on %s", at, p, again.Lineage())
	}
	if next := again.Log().Next(); next < at.Offset {
		t.Fatalf("the generation begins at %d, and the log ends at %d", at.Offset, next)
	}
}

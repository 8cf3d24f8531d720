package shard_test

import (
	"fmt"
	"maps"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// A generation in which nothing was made goes when the shard takes over the history of somebody who never heard of it. What
// the data says of where it is must not name it, however the shard came to where that generation begins: it opens after a
// loss of power, at the same position, with the same data.
func TestGenerationInVain(t *testing.T) {
	// vain is what the shard has reached the beginning of; other is the same history, and another generation behind it.
	vain := func(l wire.Lineage, at uint64) wire.Lineage { return l.Begin(wire.Generation{1}, at) }
	other := func(l wire.Lineage, at uint64) wire.Lineage { return l.Begin(wire.Generation{2}, at) }
	reopen := func(t *testing.T, o shard.Options) (*shard.Shard, shard.Options) {
		crashed := o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
		o.FS, o.Open, o.BootID = crashed, factory(crashed, new(atomic.Bool)), o.BootID+"+"
		return open(t, o), o
	}
	for name, reach := range map[string]func(t *testing.T, o shard.Options) (*shard.Shard, shard.Options){
		"by a rewind": func(t *testing.T, o shard.Options) (*shard.Shard, shard.Options) {
			old, next := parted(t, o)
			before := next.Lineage()[:1]
			idle := there(t, old, before, 4) // it was promoted, and has written nothing
			if _, err := idle.Promote(); err != nil {
				t.Fatal(err)
			}
			if err := rewindTo(old, idle, 4); err != nil {
				t.Fatal(err)
			}
			return old, o
		},
		"by frames": func(t *testing.T, o shard.Options) (*shard.Shard, shard.Options) {
			source := source(t, 4)
			o.Writable = false
			s := open(t, o)
			if err := s.Install(filledDir(t, o.FS, "/staged", source, 0), wire.Position{Generation: source.Lineage().Current()}, vain(source.Lineage(), 4)); err != nil {
				t.Fatal(err)
			}
			feed(t, source, s)
			return s, o
		},
		"by a replay": func(t *testing.T, o shard.Options) (*shard.Shard, shard.Options) {
			source := source(t, 4)
			o.Writable = false
			s := open(t, o)
			if err := s.Install(filledDir(t, o.FS, "/staged", source, 0), wire.Position{Generation: source.Lineage().Current()}, source.Lineage()); err != nil {
				t.Fatal(err)
			}
			feed(t, source, s)
			if err := s.AdoptLineage(vain(source.Lineage(), 4)); err != nil {
				t.Fatal(err)
			}
			if err := s.Log().Sync(); err != nil {
				t.Fatal(err)
			}
			return reopen(t, o)
		},
		"by a snapshot": func(t *testing.T, o shard.Options) (*shard.Shard, shard.Options) {
			source := source(t, 4)
			follower := there(t, source, vain(source.Lineage(), 4), 4)
			o.Writable = false
			s := open(t, o)
			if err := s.Install(filledDir(t, o.FS, "/staged", follower, 4), follower.Position(), follower.Lineage()); err != nil {
				t.Fatal(err)
			}
			return s, o
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(vfs.NewCrashableMem())
			s, o := reach(t, o)
			if at := s.Position(); at.Offset != 4 || len(s.Lineage()) != 2 {
				t.Fatalf("at %s on %s, want 4 on two generations", at, s.Lineage())
			}
			if err := s.Use(func(m shard.StateMachine) error { return m.Flush() }); err != nil {
				t.Fatal(err)
			}
			want := data(t, s)
			l := other(s.Lineage()[:1], 4)
			if err := s.AdoptLineage(l); err != nil {
				t.Fatal(err)
			}
			o.Writable = false
			again, _ := reopen(t, o)
			if again.Position() != l.At(4) || !maps.Equal(data(t, again), want) {
				t.Fatalf("after the loss of power it is at %s with %v, want %s with %v", again.Position(), data(t, again), l.At(4), want)
			}
		})
	}
}

// What an unsettled shard waits for is named in the same way: another history that has all of it lets the shard go on.
func TestSettlesBehindAGenerationInVain(t *testing.T) {
	old, next := parted(t, options(vfs.NewMem()))
	has := next.Lineage()
	demote(t, next)
	if _, err := next.Promote(); err != nil { // a third generation, in vain
		t.Fatal(err)
	}
	if err := rewindTo(old, next, 4); err != nil {
		t.Fatal(err)
	}
	if want := has.At(6); old.Settles() != want {
		t.Fatalf("it settles at %s, want %s", old.Settles(), want)
	}
	if err := old.AdoptLineage(has.Begin(wire.Generation{2}, 6)); err != nil {
		t.Fatal(err)
	}
	feed(t, next, old)
	if !old.Settled() || !maps.Equal(data(t, old), data(t, next)) {
		t.Fatalf("settled: %v, %v", old.Settled(), data(t, old))
	}
}

// source is a primary with n mutations.
func source(t *testing.T, n int) *shard.Shard {
	t.Helper()
	s := open(t, options(vfs.NewMem()))
	for i := range n {
		mustWrite(t, s, fmt.Sprint("k", i), "v")
	}
	return s
}

// there is a shard that follows from on the lineage l, and has as much of it as n.
func there(t *testing.T, from *shard.Shard, l wire.Lineage, n uint64) *shard.Shard {
	t.Helper()
	o := options(vfs.NewMem())
	o.Writable = false
	s := open(t, o)
	if err := s.Install(filledDir(t, o.FS, "/empty", from, 0), wire.Position{Generation: l[0].Generation}, l); err != nil {
		t.Fatal(err)
	}
	var run []byte
	err := from.Log().Replay(0, func(f wire.Frame) error {
		if f.Next() <= n {
			run = append(run, f.Raw...)
		}
		return nil
	})
	if err == nil {
		err = s.Ingest(run, 0, n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

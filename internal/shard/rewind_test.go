package shard_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// parted is an old primary that follows again, on fs, with a surplus behind offset 4, and the primary that took its place.
func parted(t *testing.T, o shard.Options) (old, next *shard.Shard) {
	t.Helper()
	old = open(t, o)
	there := options(vfs.NewMem())
	there.Writable = false
	next = open(t, there)
	if err := next.Install(filledDir(t, there.FS, "/empty", old, 0), old.Position(), old.Lineage()); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		mustWrite(t, old, fmt.Sprint("k", i), "both")
	}
	feed(t, old, next)
	if _, err := next.Promote(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, old, "k1", "lost")
	mustWrite(t, old, "only old", "lost")
	mustWrite(t, next, "k1", "new")
	mustWrite(t, next, "k2", "new")
	demote(t, old)
	return old, next
}

// feed has a shard ingest all that another one has and it has not.
func feed(t *testing.T, from, to *shard.Shard) {
	t.Helper()
	err := from.Log().Replay(to.Position().Offset, func(f wire.Frame) error {
		return to.Ingest(append([]byte(nil), f.Raw...), f.First, f.Next())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// rewindTo undoes what old has behind the offset.
func rewindTo(old, next *shard.Shard, fork uint64) error {
	keys, err := old.Touched(fork, 1<<20)
	if err != nil {
		return err
	}
	var b wire.Builder
	b.Reset()
	settles, err := next.Values(keys, func(key, value []byte, found bool) error {
		if found {
			b.Put(key, value)
		} else {
			b.Delete(key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	raw, err := b.FinishValues()
	if err != nil {
		return err
	}
	f, err := wire.ParseFrame(raw)
	if err != nil {
		return err
	}
	at := wire.Position{Generation: next.Lineage()[0].Generation, Offset: fork}
	return old.Rewind(at, settles, next.Lineage(), func(g func(wire.Frame) error) error { return g(f) })
}

// Every file operation of a rewind fails, in turn, once or with all behind it that do not delete, with an error or for
// want of room. The shard keeps the old data, whole, or has the new; and when it was killed then, it opens, rewinds if it
// must, and ends with what the new primary has.
func TestRewindFaultThenKill(t *testing.T) {
	for _, lasting := range []bool{false, true} {
		for _, fault := range []error{errorfs.ErrInjected, syscall.ENOSPC} {
			for _, again := range []bool{false, true} {
				t.Run(fmt.Sprint(fault, ",lasting=", lasting, ",again=", again), func(t *testing.T) { rewindFaults(t, fault, lasting, again) })
			}
		}
	}
}

func rewindFaults(t *testing.T, fault error, lasting, retry bool) {
	kept, went := 0, 0
	for k := int64(1); ; k++ {
		mem := vfs.NewMem()
		var count atomic.Int64
		var armed, dead atomic.Bool
		injected := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if dead.Load() {
				return errorfs.ErrInjected
			}
			if !armed.Load() || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			n := count.Add(1)
			if n == k || lasting && n > k && op.Kind != errorfs.OpRemoveAll && op.Kind != errorfs.OpFileClose {
				return fault
			}
			return nil
		}))
		o := options(injected)
		old, next := parted(t, o)
		before, at := data(t, old), old.Position()
		armed.Store(true)
		err := rewindTo(old, next, 4)
		armed.Store(false)
		hit := count.Load() >= k
		switch {
		case err == nil:
			went++
			if old.Settled() || old.Position() != next.Lineage().At(4) {
				t.Fatalf("fault at operation %d: at %s, settled: %v", k, old.Position(), old.Settled())
			}
		case !strings.Contains(err.Error(), fault.Error()):
			t.Fatalf("fault at operation %d: %v", k, err)
		default:
			kept++
			if old.Position() != at || !maps.Equal(data(t, old), before) {
				t.Fatalf("fault at operation %d, %v: %v at %s", k, err, data(t, old), old.Position())
			}
			if old.Err() == nil && retry { // without a kill between, too
				if err := rewindTo(old, next, 4); err != nil {
					t.Fatalf("after a fault at operation %d: %v", k, err)
				}
			}
		}
		dead.Store(true)
		o.FS, o.Open, o.Writable = mem, factory(mem, new(atomic.Bool)), false
		again, openErr := shard.Open(o)
		if openErr != nil {
			t.Fatalf("fault at operation %d, which the rewind told as %v: the next start failed: %v", k, err, openErr)
		}
		if again.Settled() && again.Position() == at {
			if got := data(t, again); !maps.Equal(got, before) {
				t.Fatalf("fault at operation %d: %v at %s", k, got, at)
			}
			if err := rewindTo(again, next, 4); err != nil {
				t.Fatalf("fault at operation %d: %v", k, err)
			}
		}
		if again.Settled() {
			t.Fatalf("fault at operation %d: settled at %s", k, again.Position())
		}
		feed(t, next, again)
		if got, want := data(t, again), data(t, next); !maps.Equal(got, want) || again.Position() != next.Position() {
			t.Fatalf("fault at operation %d: %v at %s, the new primary has %v at %s", k, got, again.Position(), want, next.Position())
		}
		if err := errors.Join(again.Close(), next.Close()); err != nil {
			t.Fatal(err)
		}
		if !hit {
			break
		}
	}
	if kept == 0 || went == 0 {
		t.Fatalf("the sweep saw %d rewinds that failed and %d that did not, want both", kept, went)
	}
}

// An unsettled shard takes frames of the one history only, and neither another rewind nor clients.
func TestUnsettled(t *testing.T) {
	o := options(vfs.NewMem())
	old, next := parted(t, o)
	if err := rewindTo(old, next, 4); err != nil {
		t.Fatal(err)
	}
	same := next.Lineage()[:1]
	for _, l := range []wire.Lineage{same, same.Begin(wire.Generation{7}, 4), next.Lineage().Begin(wire.Generation{7}, 5)} {
		if err := old.AdoptLineage(l); !errors.Is(err, shard.ErrUnsettled) {
			t.Errorf("taking over %s, which does not have %s, gave %v", l, old.Settles(), err)
		}
	}
	if err := old.AdoptLineage(next.Lineage().Begin(wire.Generation{7}, 6)); err != nil {
		t.Errorf("taking over a lineage that has %s: %v", old.Settles(), err)
	}
	if old.CanRewind() {
		t.Error("it says that it can be rewound again")
	}
	p := &put{key: "k", value: "v", done: make(chan error, 1)}
	read := &peek{done: make(chan error, 1)}
	if err := errors.Join(old.Submit(p), old.Submit(read)); err != nil {
		t.Fatal(err)
	}
	if err := <-p.done; !errors.Is(err, shard.ErrFollows) {
		t.Errorf("a write gave %v", err)
	}
	if err := <-read.done; !errors.Is(err, shard.ErrUnsettled) {
		t.Errorf("a reader was told %v", err)
	}
	if err := old.At(t.Context(), 6, nil); !errors.Is(err, shard.ErrUnsettled) {
		t.Errorf("who waits for an offset was told %v", err)
	}
	if _, err := old.Values(nil, nil); !errors.Is(err, shard.ErrUnsettled) {
		t.Errorf("who asks for values was told %v", err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	// A stop does not end it, and no option makes a primary of it.
	o.Writable = true
	if _, err := shard.Open(o); !errors.Is(err, shard.ErrUnsettled) {
		t.Fatalf("opening it as a primary gave %v", err)
	}
	o.Writable = false
	old = open(t, o)
	if old.Settles() != next.Lineage().At(6) {
		t.Fatalf("settles at %s after a restart", old.Settles())
	}
	feed(t, next, old)
	if !old.Settled() || !maps.Equal(data(t, old), data(t, next)) {
		t.Fatalf("settled: %v, %v", old.Settled(), data(t, old))
	}
}

// peek is a job that says why nothing may be read.
type peek struct {
	done chan error
	err  error
}

func (p *peek) Run(g *shard.Group) bool { p.err = g.Unread; return true }
func (p *peek) Committed(uint64, error) { p.done <- p.err }

// A full sync ends the state of being unsettled, whatever history it comes from.
func TestInstallSettles(t *testing.T) {
	o := options(vfs.NewMem())
	old, next := parted(t, o)
	if err := rewindTo(old, next, 4); err != nil {
		t.Fatal(err)
	}
	other := open(t, options(vfs.NewMem()))
	mustWrite(t, other, "other", "v")
	if err := old.Install(filledDir(t, o.FS, "/staged", other, 1), other.Position(), other.Lineage()); err != nil {
		t.Fatal(err)
	}
	if got := data(t, old); !old.Settled() || len(got) != 1 || got["other"] != "v" {
		t.Fatalf("settled: %v, %v", old.Settled(), got)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	o.Writable = false
	if old = open(t, o); !old.Settled() || old.Position() != other.Position() {
		t.Fatalf("after a restart settled: %v, at %s", old.Settled(), old.Position())
	}
}

// What a rewind cannot undo is said before anything is touched.
func TestCannotRewind(t *testing.T) {
	o := options(vfs.NewMem())
	old, next := parted(t, o)
	at := old.Position()
	l, g := next.Lineage(), next.Lineage()[0].Generation
	none := func(func(wire.Frame) error) error { return nil }
	for name, c := range map[string]struct {
		fork, settles wire.Position
		lineage       wire.Lineage
		want          string
	}{
		"a fork that the shard does not have":   {l.At(6), l.At(6), l, "no position behind which"},
		"its own position":                      {wire.Position{Generation: g, Offset: 6}, wire.Position{Generation: g, Offset: 6}, wire.Lineage{{Generation: g}}, "no position behind which"},
		"a fork that the primary does not have": {wire.Position{Generation: g, Offset: 5}, l.At(6), l, "does not lie on the lineage"},
		"values of another history":             {wire.Position{Generation: g, Offset: 4}, wire.Position{Generation: g, Offset: 5}, l, "does not lie on the lineage"},
		"values of before the fork":             {wire.Position{Generation: g, Offset: 4}, wire.Position{Generation: g, Offset: 3}, l, "does not lie on the lineage"},
		"a lineage that is none":                {wire.Position{Generation: g, Offset: 4}, l.At(6), wire.Lineage{{}}, "zero generation"},
	} {
		if err := old.Rewind(c.fork, c.settles, c.lineage, none); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := next.Rewind(wire.Position{Generation: g, Offset: 4}, l.At(6), l, none); !errors.Is(err, shard.ErrWritable) {
		t.Errorf("a primary was rewound: %v", err)
	}
	if _, err := old.Touched(4, 100); !errors.Is(err, shard.ErrCannotRewind) || !strings.Contains(err.Error(), "more than 100") {
		t.Errorf("a surplus over the limit: %v", err)
	}
	if old.Position() != at || len(data(t, old)) != 5 {
		t.Fatalf("%v at %s", data(t, old), old.Position())
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	// A state machine that does not have it.
	o.Writable = false
	o.Open = func(e shard.Env) (shard.StateMachine, error) {
		m, err := factory(o.FS, new(atomic.Bool))(e)
		return plain{m}, err
	}
	old = open(t, o)
	if err := old.Rewind(wire.Position{Generation: g, Offset: 4}, l.At(6), l, none); old.CanRewind() || !errors.Is(err, shard.ErrCannotRewind) {
		t.Errorf("can: %v, %v", old.CanRewind(), err)
	}
	if _, err := old.Values(nil, nil); !errors.Is(err, shard.ErrCannotRewind) {
		t.Errorf("it tells values: %v", err)
	}
}

// A range that was deleted may have held any key.
func TestRangeCannotBeUndone(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	for i := range 3 {
		mustWrite(t, s, fmt.Sprint(i), "v")
	}
	r := &deleteRange{done: make(chan error, 1)}
	if err := s.Submit(r); err != nil {
		t.Fatal(err)
	}
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	if _, err := s.Touched(1, 1<<20); !errors.Is(err, shard.ErrCannotRewind) || !strings.Contains(err.Error(), "range") {
		t.Errorf("%v", err)
	}
	if keys, err := s.Touched(4, 1<<20); err != nil || len(keys) != 0 {
		t.Errorf("%q, %v", keys, err)
	}
}

type deleteRange struct{ done chan error }

func (d *deleteRange) Run(g *shard.Group) bool {
	g.Builder.DeleteRange([]byte("0"), []byte("2"))
	g.Builder.End()
	return true
}

func (d *deleteRange) Committed(_ uint64, err error) { d.done <- err }

// Package machinetest is the conformance suite for state machines: whoever brings one in place of Pebble calls [Run] from
// a test of theirs. [Map] is the smallest machine that passes it, and a model to start from.
package machinetest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/understudy-kv/understudy/wire"
)

// Machine is the interface under test, the same as primary.StateMachine and replica.StateMachine, and Get, with which the
// suite looks at what was applied. Get reports whether the key is there.
type Machine interface {
	Position() (wire.Position, error)
	Durable() (uint64, error)
	Apply(wire.Batch) error
	Flush() error
	Checkpoint(dir string) (wire.Position, error)
	Close() error
	Get(key []byte) (value []byte, found bool, err error)
}

// Rewinder is the optional interface under test, the same as primary.Rewinder and replica.Rewinder. The cases of it are
// skipped for a machine that is none.
type Rewinder interface {
	Machine
	Values(keys [][]byte, f func(key, value []byte, found bool) error) (wire.Position, error)
	Rewind(at wire.Position, values func(func(wire.Frame) error) error) error
}

// Opener opens the machine in dir: an empty directory that may not exist, or what the machine or a Checkpoint left there.
type Opener func(dir string, beforeFlush func() error, onError func(error)) (Machine, error)

// Options say what keys the machine takes.
type Options struct {
	// Key makes the i-th key, in ascending order for ascending i below 10,000. Default: "key-%04d".
	Key func(i int) []byte
}

var generation = wire.Generation{1, 2, 3}

type suite struct {
	*testing.T
	open Opener
	key  func(int) []byte
}

// Run runs the whole suite as subtests of t.
func Run(t *testing.T, open Opener, o Options) {
	t.Helper()
	if o.Key == nil {
		o.Key = func(i int) []byte { return fmt.Appendf(nil, "key-%04d", i) }
	}
	for _, c := range []struct {
		name string
		run  func(*suite)
	}{
		{"EmptyHasNoPosition", (*suite).emptyHasNoPosition},
		{"ApplyMovesDataAndPositionTogether", (*suite).applyMovesTogether},
		{"RangesAndDeletes", (*suite).rangesAndDeletes},
		{"BatchOfManyFrames", (*suite).batchOfManyFrames},
		{"KeepsNoSlices", (*suite).keepsNoSlices},
		{"FlushIsDurable", (*suite).flushIsDurable},
		{"ReopensToAPrefix", (*suite).reopensToAPrefix},
		{"BeforeFlushComesFirst", (*suite).beforeFlushComesFirst},
		{"CheckpointOpensElsewhere", (*suite).checkpointOpensElsewhere},
		{"CheckpointOfNothing", (*suite).checkpointOfNothing},
		{"CheckpointWhileWriting", (*suite).checkpointWhileWriting},
		{"LargeValue", (*suite).largeValue},
		{"ValuesAreOfOnePosition", (*suite).valuesAreOfOnePosition},
		{"RewindGoesBack", (*suite).rewindGoesBack},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(&suite{T: t, open: open, key: o.Key}) })
	}
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) machine(dir string) Machine {
	s.Helper()
	m, err := s.open(dir, func() error { return nil }, func(err error) { s.Errorf("background error: %v", err) })
	s.must(err)
	return m
}

// frame builds one frame of one mutation.
func frame(first uint64, build func(*wire.Builder)) []byte {
	var b wire.Builder
	b.Reset()
	build(&b)
	b.End()
	raw, err := b.Finish(first, int64(first)+1)
	if err != nil {
		panic(err) // the suite's own frames are well formed
	}
	return raw
}

func (s *suite) apply(m Machine, first uint64, build func(*wire.Builder)) {
	s.Helper()
	s.must(m.Apply(batch(first, frame(first, build))))
}

func batch(first uint64, frames ...[]byte) wire.Batch {
	var raw []byte
	for _, f := range frames {
		raw = append(raw, f...)
	}
	return wire.Batch{Frames: raw, First: first, At: wire.Position{Generation: generation, Offset: first + uint64(len(frames))}}
}

func (s *suite) want(m Machine, key []byte, value string, found bool) {
	s.Helper()
	v, ok, err := m.Get(key)
	s.must(err)
	if ok != found || found && string(v) != value {
		s.Fatalf("key %q is %q, %v; want %q, %v", key, v, ok, value, found)
	}
}

func (s *suite) wantOffset(m Machine, offset uint64) {
	s.Helper()
	at, err := m.Position()
	s.must(err)
	if at.Offset != offset || offset > 0 && at.Generation != generation {
		s.Fatalf("position %s, want offset %d of %s", at, offset, generation)
	}
}

func (s *suite) emptyHasNoPosition() {
	m := s.machine(filepath.Join(s.TempDir(), "m"))
	at, err := m.Position()
	s.must(err)
	if !at.IsZero() {
		s.Fatalf("an empty machine is at %s", at)
	}
	durable, err := m.Durable()
	s.must(err)
	if durable != 0 {
		s.Fatalf("an empty machine is durable up to %d", durable)
	}
	s.must(m.Close())
}

func (s *suite) applyMovesTogether() {
	m := s.machine(filepath.Join(s.TempDir(), "m"))
	for i := range uint64(100) {
		s.apply(m, i, func(b *wire.Builder) { b.Put(s.key(int(i)), fmt.Appendf(nil, "v%d", i)) })
		s.wantOffset(m, i+1)
		s.want(m, s.key(int(i)), fmt.Sprintf("v%d", i), true)
	}
	s.apply(m, 100, func(b *wire.Builder) { b.Put(s.key(7), []byte("again")); b.Put(s.key(8), nil) })
	s.want(m, s.key(7), "again", true)
	s.want(m, s.key(8), "", true)
	s.must(m.Close())
}

func (s *suite) rangesAndDeletes() {
	m := s.machine(filepath.Join(s.TempDir(), "m"))
	s.apply(m, 0, func(b *wire.Builder) {
		for i := range 10 {
			b.Put(s.key(i), []byte("v"))
		}
	})
	s.apply(m, 1, func(b *wire.Builder) {
		b.Delete(s.key(1))
		b.Delete(s.key(99)) // never there
		b.DeleteRange(s.key(3), s.key(6))
		b.Put(s.key(4), []byte("after the range"))
	})
	for i, found := range []bool{true, false, true, false, true, false, true} {
		value := "v"
		if i == 4 {
			value = "after the range"
		}
		s.want(m, s.key(i), value, found)
	}
	s.must(m.Close())
}

func (s *suite) batchOfManyFrames() {
	m := s.machine(filepath.Join(s.TempDir(), "m"))
	var frames [][]byte
	for i := range uint64(500) {
		frames = append(frames, frame(i, func(b *wire.Builder) {
			b.Put(s.key(int(i%50)), fmt.Appendf(nil, "v%d", i))
		}))
	}
	s.must(m.Apply(batch(0, frames...)))
	s.wantOffset(m, 500)
	for i := range 50 {
		s.want(m, s.key(i), fmt.Sprintf("v%d", 450+i), true)
	}
	s.must(m.Close())
}

func (s *suite) keepsNoSlices() {
	m := s.machine(filepath.Join(s.TempDir(), "m"))
	b := batch(0, frame(0, func(b *wire.Builder) { b.Put(s.key(1), []byte("kept")) }))
	s.must(m.Apply(b))
	for i := range b.Frames {
		b.Frames[i] = 0xff
	}
	s.want(m, s.key(1), "kept", true)
	s.must(m.Close())
}

func (s *suite) flushIsDurable() {
	dir := filepath.Join(s.TempDir(), "m")
	m := s.machine(dir)
	s.apply(m, 0, func(b *wire.Builder) { b.Put(s.key(1), []byte("v")) })
	s.must(m.Flush())
	durable, err := m.Durable()
	s.must(err)
	if durable != 1 {
		s.Fatalf("durable up to %d after a flush at 1", durable)
	}
	s.must(m.Close())
	m = s.machine(dir)
	s.wantOffset(m, 1)
	s.want(m, s.key(1), "v", true)
	s.must(m.Close())
}

func (s *suite) reopensToAPrefix() {
	dir := filepath.Join(s.TempDir(), "m")
	m := s.machine(dir)
	for i := range uint64(20) {
		s.apply(m, i, func(b *wire.Builder) { b.Put(s.key(int(i)), []byte("v")) })
		if i == 9 {
			s.must(m.Flush())
		}
	}
	durable, err := m.Durable()
	s.must(err)
	s.must(m.Close())
	m = s.machine(dir)
	at, err := m.Position()
	s.must(err)
	if at.Offset < durable || at.Offset > 20 {
		s.Fatalf("reopened at %d, with %d durable of 20", at.Offset, durable)
	}
	for i := range uint64(20) {
		s.want(m, s.key(int(i)), "v", i < at.Offset)
	}
	// The log is replayed from there.
	for i := at.Offset; i < 20; i++ {
		s.apply(m, i, func(b *wire.Builder) { b.Put(s.key(int(i)), []byte("v")) })
	}
	s.wantOffset(m, 20)
	s.must(m.Close())
}

func (s *suite) beforeFlushComesFirst() {
	var calls atomic.Int64
	m, err := s.open(filepath.Join(s.TempDir(), "m"), func() error {
		calls.Add(1)
		return nil
	}, func(error) {})
	s.must(err)
	s.apply(m, 0, func(b *wire.Builder) { b.Put(s.key(1), []byte("v")) })
	s.must(m.Flush())
	if calls.Load() == 0 {
		s.Fatal("a flush did not call beforeFlush")
	}
	s.must(m.Close())
}

func (s *suite) checkpointOpensElsewhere() {
	m := s.machine(filepath.Join(s.TempDir(), "m"))
	for i := range uint64(50) {
		s.apply(m, i, func(b *wire.Builder) { b.Put(s.key(int(i)), []byte("v")) })
	}
	dir := filepath.Join(s.TempDir(), "copy")
	at, err := m.Checkpoint(dir)
	s.must(err)
	if at.Offset != 50 {
		s.Fatalf("a checkpoint at %s, want offset 50", at)
	}
	if m, ok := m.(summer); ok {
		s.checkpointSummed(m)
	}
	s.apply(m, 50, func(b *wire.Builder) { b.Delete(s.key(0)); b.Put(s.key(50), []byte("later")) })
	s.must(m.Close())
	names, err := os.ReadDir(dir)
	s.must(err)
	if len(names) == 0 {
		s.Fatal("a checkpoint without files")
	}
	c := s.machine(dir)
	s.wantOffset(c, 50)
	s.want(c, s.key(0), "v", true)
	s.want(c, s.key(50), "", false)
	s.apply(c, 50, func(b *wire.Builder) { b.Put(s.key(1), []byte("goes on")) })
	s.want(c, s.key(1), "goes on", true)
	s.must(c.Close())
}

// summer is a machine that knows sums, the same as primary.Summer but for the rest of a machine.
type summer interface {
	CheckpointSummed(dir string) (at wire.Position, known []wire.File, err error)
}

func (s *suite) checkpointSummed(m summer) {
	dir := filepath.Join(s.TempDir(), "summed")
	at, known, err := m.CheckpointSummed(dir)
	s.must(err)
	if at.Offset != 50 {
		s.Errorf("a checkpoint at %s, want offset 50", at)
	}
	for _, f := range known {
		content, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Name)))
		s.must(err)
		if uint64(len(content)) != f.Size || xxh3.Hash128(content).Bytes() != f.Sum {
			s.Errorf("%s: told were %d bytes with sum %x, it has %d with %x", f.Name, f.Size, f.Sum, len(content), xxh3.Hash128(content).Bytes())
		}
	}
}

func (s *suite) checkpointOfNothing() {
	m := s.machine(filepath.Join(s.TempDir(), "m"))
	dir := filepath.Join(s.TempDir(), "copy")
	at, err := m.Checkpoint(dir)
	s.must(err)
	if at.Offset != 0 {
		s.Fatalf("a checkpoint of nothing at %s", at)
	}
	s.must(m.Close())
	c := s.machine(dir)
	s.wantOffset(c, 0)
	s.must(c.Close())
}

func (s *suite) checkpointWhileWriting() {
	m := s.machine(filepath.Join(s.TempDir(), "m"))
	s.apply(m, 0, func(b *wire.Builder) { b.Put(s.key(0), []byte("v")) })
	stop, stopped := make(chan struct{}), make(chan error, 1)
	// The writer stands for the shard's loop; it is ended by stop and waited for below.
	go func() {
		for i := uint64(1); ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := m.Apply(batch(i, frame(i, func(b *wire.Builder) {
				b.Put(s.key(int(i%9000)), fmt.Appendf(nil, "%d", i))
				b.Put(s.key(9500), fmt.Appendf(nil, "%d", i+1))
			}))); err != nil {
				stopped <- err
				return
			}
		}
	}()
	var dirs []string
	var ats []wire.Position
	for range 3 {
		dir := filepath.Join(s.TempDir(), "copy")
		at, err := m.Checkpoint(dir)
		s.must(err)
		dirs, ats = append(dirs, dir), append(ats, at)
	}
	close(stop)
	s.must(<-stopped)
	s.must(m.Close())
	for i, dir := range dirs {
		c := s.machine(dir)
		s.wantOffset(c, ats[i].Offset)
		if ats[i].Offset > 1 { // each mutation wrote its own position as a value
			s.want(c, s.key(9500), fmt.Sprint(ats[i].Offset), true)
		}
		s.must(c.Close())
	}
}

func (s *suite) largeValue() {
	m := s.machine(filepath.Join(s.TempDir(), "m"))
	big := make([]byte, 24<<20)
	for i := range big {
		big[i] = byte(i * 7)
	}
	s.apply(m, 0, func(b *wire.Builder) { b.Put(s.key(1), big) })
	s.want(m, s.key(1), string(big), true)
	s.must(m.Flush())
	s.want(m, s.key(1), string(big), true)
	s.must(m.Close())
}

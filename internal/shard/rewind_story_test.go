package shard_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// edit is a job that makes mutations through the engine's transaction.
type edit struct {
	f    func(g *shard.Group, tx *engine.Tx)
	done chan error
}

func (e *edit) Run(g *shard.Group) bool {
	if g.Err == nil {
		e.f(g, g.StateMachine.(*engine.Engine).Tx())
	}
	return true
}

func (e *edit) Committed(_ uint64, err error) { e.done <- err }

// story is an old primary, a new one that was promoted in its place, and what the new one had at each of its positions.
type story struct {
	*testing.T
	rnd      *rand.Rand
	keys     int
	old, new *shard.Shard
	fork     uint64
	states   map[uint64]string // of the new primary, by offset
	now      int64

	mem  *vfs.MemFS // that the old one lives on
	mu   *sync.RWMutex
	opts shard.Options
	// After so many write operations the old one's file system is cloned as a crash would leave it.
	left    atomic.Int64
	percent int
	crashed atomic.Pointer[vfs.MemFS]
}

// calm keeps crash clones and two operations of vfs.MemFS apart, which take its lock twice.
type calm struct {
	vfs.FS
	mu *sync.RWMutex
}

func (c calm) Link(from, to string) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.FS.Link(from, to)
}

func (c calm) Unwrap() vfs.FS { return c.FS }

// on has the old shard live on a file system.
func (s *story) on(mem *vfs.MemFS) {
	s.mem, s.mu = mem, new(sync.RWMutex)
	mu, seed := s.mu, s.rnd.Uint64() // whose goroutine the crash finds, nobody knows
	fs := errorfs.Wrap(calm{mem, mu}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && s.left.Add(-1) == 0 {
			mu.Lock()
			defer mu.Unlock()
			s.crashed.Store(mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: s.percent, RNG: rng(seed)}))
		}
		return nil
	}))
	s.opts.FS, s.opts.Open = fs, onEngine(fs)
}

// dump is all that a shard holds, expiry index included, and where it is.
func dump(s *shard.Shard) (at uint64, text string, err error) {
	err = s.Use(func(m shard.StateMachine) error {
		v, err := m.(*engine.Engine).NewView()
		if err != nil {
			return err
		}
		var b strings.Builder
		from, to := engine.KeyspaceBounds()
		err = v.Raw(from, to, func(k, value []byte) bool {
			fmt.Fprintf(&b, "%x=%x\n", k, value)
			return true
		})
		p, perr := v.Position()
		at, text = p.Offset, b.String()
		return errors.Join(err, perr, v.Close())
	})
	return at, text, err
}

// write makes some mutations in one frame, of puts with and without a deadline, and of deletes.
func (s *story) write(on *shard.Shard) {
	s.Helper()
	s.now++
	e := &edit{done: make(chan error, 1), f: func(g *shard.Group, tx *engine.Tx) {
		for range 1 + s.rnd.IntN(3) {
			tx.Begin(&g.Builder, g.ID, s.now)
			for range 1 + s.rnd.IntN(3) {
				key := fmt.Appendf(nil, "k%d", s.rnd.IntN(s.keys))
				r := engine.Record{Type: engine.TypeString, Value: fmt.Appendf(nil, "%x", s.rnd.Uint64())}
				switch s.rnd.IntN(4) {
				case 0:
					tx.Delete(key)
				case 1:
					r.Deadline = s.now + 1000 + s.rnd.Int64N(5)
					tx.Set(key, r)
				default:
					tx.Set(key, r)
				}
			}
			tx.End()
		}
	}}
	if err := on.Submit(e); err != nil {
		s.Fatal(err)
	}
	if err := <-e.done; err != nil {
		s.Fatal(err)
	}
	if on == s.new {
		s.note()
	}
}

// note remembers what the new primary has now.
func (s *story) note() {
	s.Helper()
	at, text, err := dump(s.new)
	if err != nil {
		s.Fatal(err)
	}
	s.states[at] = text
}

// pump feeds a shard with another's frames, from where it is, until it has n more of them; 0 means all.
func (s *story) pump(from, to *shard.Shard, n int, after func()) {
	s.Helper()
	stop := errors.New("enough")
	fed := 0
	err := from.Log().Replay(to.Position().Offset, func(f wire.Frame) error {
		if err := to.Ingest(append([]byte(nil), f.Raw...), f.First, f.Next()); err != nil {
			return err
		}
		after()
		if fed++; fed == n {
			return stop
		}
		return nil
	})
	if err != nil && err != stop {
		s.Fatal(err)
	}
}

// newStory lets the histories part: the old primary wrote [0, fork), which the new one has, and went on, as did the new one.
func newStory(t *testing.T, seed uint64) *story {
	s := &story{T: t, rnd: rand.New(rand.NewPCG(seed, 11)), states: map[uint64]string{}}
	s.keys = 3 + s.rnd.IntN(40)
	s.opts = shard.Options{Dir: "/old", Writable: true, BootID: "boot-0", SegmentBytes: 4 << 10, BacklogDisk: 64 << 10, BacklogKeep: 32 << 10, BacklogMemory: 8 << 10}
	s.on(vfs.NewCrashableMem())
	s.old = open(t, s.opts)
	there := vfs.NewMem()
	s.new = open(t, shard.Options{FS: there, Dir: "/new", BootID: "boot-0", Open: onEngine(there)})
	if _, err := s.old.Checkpoint("/snapshot"); err != nil {
		t.Fatal(err)
	}
	if ok, err := vfs.Clone(s.opts.FS, there, "/snapshot", "/snapshot"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := s.new.Install("/snapshot", s.old.Position(), s.old.Lineage()); err != nil {
		t.Fatal(err)
	}
	for range 1 + s.rnd.IntN(30) {
		s.write(s.old)
	}
	s.pump(s.old, s.new, 0, func() {})
	at, err := s.new.Promote()
	if err != nil {
		t.Fatal(err)
	}
	s.fork = at.Offset
	s.note()
	for range 1 + s.rnd.IntN(20) {
		s.write(s.old)
		if s.rnd.IntN(10) == 0 { // its surplus may have generations of its own
			if err := s.old.Demote(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.old.Promote(); err != nil {
				t.Fatal(err)
			}
		}
		if s.rnd.IntN(6) == 0 {
			if err := s.old.Use(func(m shard.StateMachine) error { return m.Flush() }); err != nil {
				t.Fatal(err)
			}
		}
		if s.rnd.IntN(4) == 0 {
			if err := s.old.Log().Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range s.rnd.IntN(20) {
		s.write(s.new)
	}
	if err := s.old.Demote(); err != nil {
		t.Fatal(err)
	}
	s.opts.Writable = false
	return s
}

// rewind takes the old primary back to the fork, with the new one's values.
func (s *story) rewind() {
	s.Helper()
	keys, err := s.old.Touched(s.fork, 1<<20)
	if err != nil {
		s.Fatal(err)
	}
	var frames []wire.Frame
	settles, err := s.new.Values(keys, func(key, value []byte, found bool) error {
		var b wire.Builder
		b.Reset()
		if found {
			b.Put(key, value)
		} else {
			b.Delete(key)
		}
		raw, err := b.FinishValues()
		if err != nil {
			return err
		}
		f, err := wire.ParseFrame(raw)
		frames = append(frames, f)
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	for range s.rnd.IntN(5) {
		s.write(s.new)
	}
	err = s.old.Rewind(wire.Position{Generation: s.new.Lineage()[0].Generation, Offset: s.fork}, settles, s.new.Lineage(), func(f func(wire.Frame) error) error {
		for _, fr := range frames {
			if err := f(fr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	if at := s.old.Position(); at != s.new.Lineage().At(s.fork) || s.old.Settled() != (settles.Offset == s.fork) {
		s.Fatalf("after a rewind to %d, settled at %s: at %s, settled: %v", s.fork, settles, at, s.old.Settled())
	}
}

// rejoin does what the two ends of a link would.
func (s *story) rejoin() {
	s.Helper()
	if s.old.Settled() && !s.new.Lineage().Contains(s.old.Position(), s.new.Position().Offset) {
		s.rewind()
	}
	if err := s.old.AdoptLineage(s.new.Lineage()); err != nil {
		s.Fatal(err)
	}
	s.judge()
	s.pump(s.new, s.old, 0, s.judge)
	if s.old.Position() != s.new.Position() || !s.old.Settled() {
		s.Fatalf("at the end at %s, settled: %v, and the new primary at %s", s.old.Position(), s.old.Settled(), s.new.Position())
	}
}

// judge compares what the old primary has with what the new one had at that position, or sees that nobody can look.
func (s *story) judge() {
	s.Helper()
	at, got, err := dump(s.old)
	if want := s.old.Settles(); !want.IsZero() {
		_, promoted := s.old.Promote()
		_, copied := s.old.Checkpoint("/nobody")
		if !errors.Is(err, shard.ErrUnsettled) || !errors.Is(promoted, shard.ErrUnsettled) || !errors.Is(copied, shard.ErrUnsettled) {
			s.Fatalf("an unsettled shard was read (%v), promoted (%v) or copied (%v)", err, promoted, copied)
		}
		if s.old.Position().Offset >= want.Offset {
			s.Fatalf("at %s, and not settled, which it is from %s on", s.old.Position(), want)
		}
		return
	}
	if err != nil {
		s.Fatal(err)
	}
	if want, known := s.states[at]; at >= s.fork && (!known || got != want) {
		s.Fatalf("at %d it holds\n%sand the new primary held (known: %v)\n%s", at, got, known, want)
	}
}

// crash has the old primary rejoin, and then puts it back to how a crash before the n-th write operation would have left
// it: one in which that much of what was unsynced survived, all of it when the process was killed. It reports whether there
// was such an operation.
func (s *story) crash(percent int, n int64) bool {
	s.Helper()
	s.percent = percent
	s.left.Store(n)
	s.rejoin()
	s.left.Store(0)
	clone := s.crashed.Swap(nil)
	if err := s.old.Close(); err != nil {
		s.Fatal(err)
	}
	crashed := clone != nil
	if !crashed {
		clone = s.mem // it stopped cleanly
	} else if percent < 100 {
		s.opts.BootID += "+"
	}
	s.on(clone)
	s.old = open(s.T, s.opts)
	return crashed
}

// A crash before each operation of a rejoin: the old primary has its old data, or is unsettled, or has rejoined, and goes
// on from there.
func TestRejoinCrashAnywhere(t *testing.T) {
	every := int64(1)
	if testing.Short() {
		every = 7
	}
	for _, percent := range []int{0, 100} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			t.Parallel()
			saw := map[string]int{}
			for n := int64(1); ; n += every {
				s := newStory(t, 4)
				for range 6 {
					s.write(s.new)
				}
				if !s.crash(percent, n) {
					break
				}
				switch at := s.old.Position().Offset; {
				case !s.old.Settled():
					saw["unsettled"]++
				case s.old.Lineage().Equal(s.new.Lineage()):
					saw["rejoined"]++
				case at > s.fork:
					saw["old"]++
				}
				s.rejoin()
				if err := errors.Join(s.old.Close(), s.new.Close()); err != nil {
					t.Fatal(err)
				}
			}
			if saw["unsettled"] == 0 || saw["rejoined"] == 0 || saw["old"] == 0 {
				t.Fatalf("the sweep saw %v; want the old data, unsettled data, and the new primary's", saw)
			}
			t.Log(saw)
		})
	}
}

// Random histories, surpluses and crashes in the middle of a rejoin: at every position at which a shard that has gone back
// can be looked at it holds, byte by byte, what the new primary held there; and it always gets there.
func TestRejoinIsExact(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := newStory(t, seed)
			for range s.rnd.IntN(4) {
				s.crash([]int{0, 30, 100}[s.rnd.IntN(3)], 1+s.rnd.Int64N(120))
				for range s.rnd.IntN(8) {
					s.write(s.new)
				}
			}
			s.rejoin()
			if _, err := s.old.Promote(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

package shard_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// onEngine opens shards on Pebble.
func onEngine(fs vfs.FS) shard.Factory {
	return func(e shard.Env) (shard.StateMachine, error) {
		return engine.Open(e.Dir, engine.Options{FS: fs, BeforeFlush: e.BeforeFlush, OnError: e.OnError})
	}
}

// set is a job that sets one key through the engine's transaction, as commands do.
type set struct {
	key, value string
	done       chan error
}

func (p *set) Run(g *shard.Group) bool {
	if g.Err != nil {
		return true
	}
	tx := g.StateMachine.(*engine.Engine).Tx()
	tx.Begin(&g.Builder, g.ID, g.NowMillis)
	tx.Set([]byte(p.key), engine.Record{Type: engine.TypeString, Value: []byte(p.value)})
	tx.End()
	return true
}

func (p *set) Committed(_ uint64, err error) { p.done <- err }

func trySet(s *shard.Shard, key, value string) error {
	p := &set{key: key, value: value, done: make(chan error, 1)}
	if err := s.Submit(p); err != nil {
		return err
	}
	if err := <-p.done; err != nil {
		return err
	}
	return s.Err()
}

// prefix checks that the shard holds exactly the first n of the keys k0, k1, ... and returns n.
func prefix(s *shard.Shard) (n int, err error) {
	held := map[string]string{}
	err = s.Use(func(m shard.StateMachine) error {
		v, err := m.(*engine.Engine).NewView()
		if err != nil {
			return err
		}
		var failed error
		from, to := engine.DataBounds(0, engine.Slots)
		err = v.Raw(from, to, func(key, value []byte) bool {
			k, err := engine.DecodeKey(key)
			r, rerr := engine.DecodeRecord(value)
			failed = errors.Join(failed, err, rerr)
			held[string(k.User)] = string(r.Value)
			return true
		})
		return errors.Join(err, failed, v.Close())
	})
	if err != nil {
		return 0, err
	}
	for n < len(held) && held[fmt.Sprint("k", n)] == value(n) {
		n++
	}
	if n != len(held) {
		return n, fmt.Errorf("%d keys, of which only the first %d are a prefix", len(held), n)
	}
	if at := s.Position().Offset; at != uint64(n) {
		return n, fmt.Errorf("%d keys at offset %d: data and position disagree", n, at)
	}
	return n, nil
}

func value(i int) string { return fmt.Sprint(i, strings.Repeat("x", 200)) }

// After every k-th operation of the whole stack (log, Pebble, manifest) the power goes, or the process is killed: what
// opens is a prefix of what was written, never less than what was promised, with the generation that design.md §3 demands.
func TestCrashAnywhere(t *testing.T) {
	const writes = 60
	for _, policy := range []shard.Fsync{shard.FsyncAlways, shard.FsyncEverySec} {
		for _, percent := range []int{0, 50, 100} {
			t.Run(fmt.Sprint(policy, percent), func(t *testing.T) {
				t.Parallel()
				every := 7
				if testing.Short() {
					every = 31
				}
				for k := 1; ; k += every {
					fs := vfs.NewCrashableMem()
					var count atomic.Int64
					var crashed atomic.Pointer[crash]
					var acked atomic.Int64
					injected := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
						if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && count.Add(1) == int64(k) {
							promised := acked.Load()
							clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng(uint64(k))})
							crashed.Store(&crash{fs: clone, acked: promised})
						}
						return nil
					}))
					o := shard.Options{FS: injected, Dir: "/s", Writable: true, BootID: "boot-1", Fsync: policy, Open: onEngine(injected), SegmentBytes: 64 << 10}
					s, err := shard.Open(o)
					if err != nil {
						t.Fatal(err)
					}
					for i := range writes {
						if err := trySet(s, fmt.Sprint("k", i), value(i)); err != nil {
							t.Fatal(err)
						}
						acked.Store(int64(i + 1))
						if i%17 == 16 {
							if err := s.Use(func(m shard.StateMachine) error { return m.Flush() }); err != nil {
								t.Fatal(err)
							}
						}
						if i%23 == 22 {
							if err := s.Trim(); err != nil {
								t.Fatal(err)
							}
						}
					}
					lineage := s.Lineage()
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					c := crashed.Load()
					if c == nil {
						return // every operation had its turn
					}
					// Everything unsynced kept is what a killed process leaves: same boot. Otherwise the machine died.
					o.FS, o.Open = c.fs, onEngine(c.fs)
					if percent != 100 {
						o.BootID = "boot-2"
					}
					c.check(t, o, policy, percent, k, lineage)
				}
			})
		}
	}
}

type crash struct {
	fs    *vfs.MemFS
	acked int64
}

func (c *crash) check(t *testing.T, o shard.Options, policy shard.Fsync, percent, k int, lineage wire.Lineage) {
	t.Helper()
	s, err := shard.Open(o)
	if err != nil {
		t.Fatalf("crash at operation %d: %v", k, err)
	}
	n, err := prefix(s)
	if err != nil {
		t.Fatalf("crash at operation %d: %v", k, err)
	}
	if keeps := policy == shard.FsyncAlways || percent == 100; keeps && int64(n) < c.acked {
		t.Fatalf("crash at operation %d: %d writes were acknowledged, %d are there", k, c.acked, n)
	}
	if percent == 100 && c.acked > 0 && !s.Lineage().Equal(lineage) {
		t.Fatalf("crash at operation %d: a kill changed the lineage from %s to %s", k, lineage, s.Lineage())
	}
	if err := trySet(s, fmt.Sprint("k", n), value(n)); err != nil {
		t.Fatalf("crash at operation %d: writing after recovery: %v", k, err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("crash at operation %d: %v", k, err)
	}
}

// Every file operation of the log and the manifest fails once, in turn: what is acknowledged is there after a restart,
// whatever failed. (Pebble's own files are swept in package engine.)
func TestFaultAnywhere(t *testing.T) {
	every := int64(3)
	if testing.Short() {
		every = 23
	}
	for k := int64(1); ; k += every {
		mem := vfs.NewCrashableMem()
		var count atomic.Int64
		hit := false
		injected := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && !strings.Contains(op.Path, "/engine-") && count.Add(1) == k {
				hit = true
				return errorfs.ErrInjected
			}
			return nil
		}))
		o := shard.Options{FS: injected, Dir: "/s", Writable: true, BootID: "boot-1", Open: onEngine(injected), SegmentBytes: 64 << 10}
		acked := 0
		s, err := shard.Open(o)
		if err == nil {
			for i := range 40 {
				if err = trySet(s, fmt.Sprint("k", i), value(i)); err != nil {
					break
				}
				acked = i + 1
				if i%17 == 16 {
					// A failed flush is Pebble's to retry, or the shard's to report at the next write.
					_ = s.Use(func(m shard.StateMachine) error { return m.Flush() })
				}
			}
			_ = s.Close() // may well report the fault
		}
		o.FS, o.Open = mem, onEngine(mem)
		again, err := shard.Open(o)
		if err != nil {
			t.Fatalf("fault at operation %d: the next start failed: %v", k, err)
		}
		n, err := prefix(again)
		if err != nil {
			t.Fatalf("fault at operation %d: %v", k, err)
		}
		if n < acked {
			t.Fatalf("fault at operation %d: %d writes were acknowledged, %d are there", k, acked, n)
		}
		if err := again.Close(); err != nil {
			t.Fatalf("fault at operation %d: %v", k, err)
		}
		if !hit {
			return
		}
	}
}

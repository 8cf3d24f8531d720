package shard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// put is a job of one mutation.
type put struct {
	key, value string
	done       chan error
	next       uint64
	refused    error
}

func (p *put) Run(g *shard.Group) bool {
	if p.refused = g.Err; p.refused != nil {
		return true
	}
	g.Builder.Put([]byte(p.key), []byte(p.value))
	g.Builder.End()
	return true
}

func (p *put) Committed(next uint64, err error) { p.next = next; p.done <- errors.Join(p.refused, err) }

func write(t testing.TB, s *shard.Shard, key, value string) (uint64, error) {
	t.Helper()
	p := &put{key: key, value: value, done: make(chan error, 1)}
	if err := s.Submit(p); err != nil {
		return 0, err
	}
	err := <-p.done
	if err == nil {
		err = s.Err()
	}
	return p.next, err
}

func mustWrite(t testing.TB, s *shard.Shard, key, value string) uint64 {
	t.Helper()
	next, err := write(t, s, key, value)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func data(t testing.TB, s *shard.Shard) (out map[string]string) {
	t.Helper()
	err := s.Use(func(m shard.StateMachine) error {
		mm := m.(*machine)
		mm.mu.Lock()
		defer mm.mu.Unlock()
		out = make(map[string]string, len(mm.data))
		for k, v := range mm.data {
			out[k] = v
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func options(fs vfs.FS) shard.Options {
	return shard.Options{FS: fs, Dir: "/s", Writable: true, BootID: "boot-1", Open: factory(fs, new(atomic.Bool))}
}

func open(t testing.TB, o shard.Options) *shard.Shard {
	t.Helper()
	s, err := shard.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // closed already in most tests; then it does nothing
	return s
}

func TestCleanStopGoesOn(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	s := open(t, o)
	for i := range 10 {
		mustWrite(t, s, fmt.Sprint("k", i), "v")
	}
	lineage, at := s.Lineage(), s.Position()
	if at.Offset != 10 || len(lineage) != 1 {
		t.Fatalf("at %s on %s, want offset 10 on one generation", at, lineage)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.BootID = "boot-2"
	s = open(t, o)
	if !s.Lineage().Equal(lineage) || s.Position() != at || len(data(t, s)) != 10 {
		t.Fatalf("after a clean stop and a reboot: at %s on %s, want %s on %s", s.Position(), s.Lineage(), at, lineage)
	}
	if next := mustWrite(t, s, "more", "v"); next != 11 {
		t.Fatalf("next offset %d, want 11", next)
	}
}

// A kill takes nothing that was written, and the generation goes on: same boot.
func TestKillLosesNothing(t *testing.T) {
	for _, policy := range []shard.Fsync{shard.FsyncAlways, shard.FsyncEverySec, shard.FsyncNo} {
		t.Run(string(policy), func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			o := options(fs)
			o.Fsync = policy
			s := open(t, o)
			for i := range 50 {
				mustWrite(t, s, fmt.Sprint("k", i), "v")
			}
			lineage := s.Lineage()
			killed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng(1)})
			o.FS, o.Open = killed, factory(killed, new(atomic.Bool))
			again := open(t, o)
			if got := len(data(t, again)); got != 50 || !again.Lineage().Equal(lineage) {
				t.Fatalf("after a kill: %d keys of 50 on %s, want all on %s", got, again.Lineage(), lineage)
			}
		})
	}
}

// What followed a primary does not go on in its generation: the primary, or another replica that is ahead, may do so too,
// and positions that are the same would stand for different data.
func TestWritableAfterFollowing(t *testing.T) {
	source := open(t, options(vfs.NewMem()))
	var frames []byte
	for i := range 5 {
		mustWrite(t, source, fmt.Sprint("k", i), "v")
	}
	if err := source.Log().Replay(0, func(f wire.Frame) error { frames = append(frames, f.Raw...); return nil }); err != nil {
		t.Fatal(err)
	}
	fs := vfs.NewMem()
	o := options(fs)
	o.Writable = false
	s := open(t, o)
	if err := s.Install(filledDir(t, fs, "/staged", source, 0), source.Lineage().At(0), source.Lineage()); err != nil {
		t.Fatal(err)
	}
	if err := s.Ingest(frames, 0, 5); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it may follow again in the same generation
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, o)
		if !s.Lineage().Equal(source.Lineage()) {
			t.Fatalf("following again: on %s, want %s", s.Lineage(), source.Lineage())
		}
	}
	for range 2 { // once is enough
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		o.Writable = true
		s = open(t, o)
		l := s.Lineage()
		if len(l) != 2 || l[0] != source.Lineage()[0] || l[1].First != 5 || s.Position().Generation != l[1].Generation {
			t.Fatalf("writable after following: at %s on %s, want a second generation from offset 5", s.Position(), l)
		}
	}
	if next := mustWrite(t, s, "own", "v"); next != 6 || len(data(t, s)) != 6 {
		t.Fatalf("next offset %d with %d keys, want 6 and 6", next, len(data(t, s)))
	}
}

// A power loss under everysec begins a new generation at what was recovered; under always it loses nothing and goes on.
func TestPowerLoss(t *testing.T) {
	for _, policy := range []shard.Fsync{shard.FsyncAlways, shard.FsyncEverySec, shard.FsyncNo} {
		for _, percent := range []int{0, 50, 100} {
			t.Run(fmt.Sprint(policy, percent), func(t *testing.T) {
				for seed := range uint64(20) {
					fs := vfs.NewCrashableMem()
					o := options(fs)
					o.Fsync = policy
					s := open(t, o)
					for i := range 50 {
						mustWrite(t, s, fmt.Sprint("k", i), "v")
						if i == 20 {
							if err := s.Log().Sync(); err != nil {
								t.Fatal(err)
							}
						}
					}
					old := s.Lineage()
					lost := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng(seed)})
					o.FS, o.Open, o.BootID = lost, factory(lost, new(atomic.Bool)), "boot-2"
					again, err := shard.Open(o)
					if err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
					at := again.Position()
					got := data(t, again)
					if uint64(len(got)) != at.Offset {
						t.Fatalf("seed %d: %d keys at %s: not a prefix", seed, len(got), at)
					}
					for i := range at.Offset {
						if _, ok := got[fmt.Sprint("k", i)]; !ok {
							t.Fatalf("seed %d: key %d is missing at %s", seed, i, at)
						}
					}
					promised := uint64(21)
					if policy == shard.FsyncAlways {
						promised = 50
					}
					if at.Offset < promised {
						t.Fatalf("seed %d: recovered %d, %d were synced", seed, at.Offset, promised)
					}
					if same := again.Lineage().Equal(old); same != (policy == shard.FsyncAlways) {
						t.Fatalf("seed %d: lineage %s was %s", seed, again.Lineage(), old)
					}
					if policy != shard.FsyncAlways && again.Lineage()[1].First != at.Offset {
						t.Fatalf("seed %d: new generation at %d, recovered %d", seed, again.Lineage()[1].First, at.Offset)
					}
					if err := again.Close(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// The weakest policy of a run decides, and a stronger one of the next run does not vouch for what the last one left.
func TestPolicyChangeIsRemembered(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := options(fs)
	o.Fsync = shard.FsyncAlways
	s := open(t, o)
	if err := s.SetFsync(shard.FsyncNo); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, s, "a", "1")
	if err := s.SetFsync(shard.FsyncAlways); err != nil {
		t.Fatal(err)
	}
	lost := fs.CrashClone(vfs.CrashCloneCfg{RNG: rng(1)})
	o.FS, o.Open, o.BootID = lost, factory(lost, new(atomic.Bool)), "boot-2"
	if again := open(t, o); len(again.Lineage()) != 2 {
		t.Fatalf("lineage %s: a run that was at fsync=no for a while must not be trusted", again.Lineage())
	}
	killed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng(1)})
	o.FS, o.Open, o.BootID = killed, factory(killed, new(atomic.Bool)), "boot-1"
	o.Fsync = shard.FsyncAlways
	second := open(t, o)
	lost = killed.CrashClone(vfs.CrashCloneCfg{RNG: rng(1)})
	if got := data(t, second); got["a"] != "1" {
		t.Fatalf("a kill lost a write: %v", got)
	}
	o.FS, o.Open, o.BootID = lost, factory(lost, new(atomic.Bool)), "boot-2"
	if third := open(t, o); data(t, third)["a"] != "1" || len(third.Lineage()) != 1 {
		t.Fatalf("what the first run left unsynced was lost under always: %v on %s", data(t, third), third.Lineage())
	}
}

// Many writers, one order: each group is a frame, and every reply's offset is behind its write.
func TestConcurrentJobs(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, options(fs))
	var wait sync.WaitGroup
	for w := range 8 {
		// Eight clients; waited for below.
		wait.Go(func() {
			last := uint64(0)
			for i := range 200 {
				next, err := write(t, s, fmt.Sprint(w, "-", i), "v")
				if err != nil || next <= last {
					t.Errorf("writer %d: offset %d after %d, %v", w, next, last, err)
					return
				}
				last = next
			}
		})
	}
	wait.Wait()
	if at := s.Position(); at.Offset != 1600 || len(data(t, s)) != 1600 {
		t.Fatalf("at %s with %d keys, want 1600", at, len(data(t, s)))
	}
	var frames, mutations int
	err := s.Log().Replay(0, func(f wire.Frame) error { frames++; mutations += int(f.Count); return f.Check() })
	if err != nil || mutations != 1600 || frames > mutations {
		t.Fatalf("the log holds %d mutations in %d frames, %v", mutations, frames, err)
	}
}

func TestIngestAndAt(t *testing.T) {
	source := open(t, options(vfs.NewMem()))
	var frames []byte
	for i := range 10 {
		mustWrite(t, source, fmt.Sprint("k", i), "v")
	}
	if err := source.Log().Replay(0, func(f wire.Frame) error { frames = append(frames, f.Raw...); return nil }); err != nil {
		t.Fatal(err)
	}
	fs := vfs.NewMem()
	o := options(fs)
	o.Writable = false
	s := open(t, o)
	if !s.Position().IsZero() {
		t.Fatalf("an empty replica is at %s", s.Position())
	}
	if err := s.Ingest(frames, 0, 10); err == nil {
		t.Fatal("a shard without a history took frames")
	}
	staged := filledDir(t, fs, "/staged", source, 0)
	if err := s.Install(staged, source.Lineage().At(0), source.Lineage()); err != nil {
		t.Fatal(err)
	}
	if err := s.Ingest(frames, 3, 13); !errors.Is(err, shard.ErrGap) {
		t.Fatalf("a gap gave %v", err)
	}
	s.PauseIngest(time.Hour)
	saw := make(chan int, 1)
	ingested := make(chan error, 1)
	// The applier; its end is waited for below.
	go func() { ingested <- s.Ingest(frames, 0, 10) }()
	err := s.At(context.Background(), 4, func(at wire.Position, m shard.StateMachine) error {
		mm := m.(*machine)
		mm.mu.Lock()
		defer mm.mu.Unlock()
		saw <- len(mm.data)
		return nil
	})
	if err != nil || <-saw != 4 {
		t.Fatalf("At(4) did not see exactly four mutations: %v", err)
	}
	if err := <-ingested; err != nil {
		t.Fatal(err)
	}
	if err := s.At(context.Background(), 4, nil); !errors.Is(err, shard.ErrPassed) {
		t.Fatalf("a passed offset gave %v", err)
	}
	if s.Position() != source.Position() {
		t.Fatalf("the replica is at %s, its source at %s", s.Position(), source.Position())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.At(ctx, 99, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("At with an ended context gave %v", err)
	}
	// The replica's log holds the primary's bytes.
	var again []byte
	if err := s.Log().Replay(0, func(f wire.Frame) error { again = append(again, f.Raw...); return nil }); err != nil || !bytes.Equal(again, frames) {
		t.Fatalf("the replica's log differs from the primary's (%v)", err)
	}
}

// A full disk refuses writes, acknowledges none, and is over when there is room.
func TestDiskFull(t *testing.T) {
	mem := vfs.NewMem()
	var full atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt) && strings.Contains(op.Path, "/log-") {
			return syscall.ENOSPC
		}
		return nil
	}))
	o := options(fs)
	o.Open = factory(mem, new(atomic.Bool))
	s := open(t, o)
	mustWrite(t, s, "a", "1")
	full.Store(true)
	if _, err := write(t, s, "b", "1"); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a full disk gave %v", err)
	}
	if got := data(t, s); len(got) != 1 {
		t.Fatalf("a refused write was applied: %v", got)
	}
	full.Store(false)
	eventually.True(t, 10*time.Second, "the shard takes writes again", func() bool { return s.Err() == nil })
	if next := mustWrite(t, s, "c", "1"); next != 2 {
		t.Fatalf("next offset %d after the disk had room again, want 2", next)
	}
}

// pitfall 26: an apply error stops the shard and is never acknowledged; the log brings the state up to date at the next start.
func TestApplyErrorFences(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	fail := new(atomic.Bool)
	o.Open = factory(fs, fail)
	s := open(t, o)
	mustWrite(t, s, "a", "1")
	fail.Store(true)
	if _, err := write(t, s, "b", "1"); err == nil {
		t.Fatal("a failed apply was acknowledged")
	}
	fail.Store(false)
	if _, err := write(t, s, "c", "1"); err == nil {
		t.Fatal("a fenced shard took a write")
	}
	if at := s.Position(); at.Offset != 1 {
		t.Fatalf("published %s after a failed apply", at)
	}
	if err := s.Close(); err == nil {
		t.Fatal("a fenced shard closed as if it were clean")
	}
	s = open(t, o)
	if got := data(t, s); got["b"] != "1" {
		t.Fatalf("the logged frame was not replayed: %v", got)
	}
}

func TestMixedDirectoriesAreRefused(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	s := open(t, o)
	mustWrite(t, s, "a", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Shard = 1
	if _, err := shard.Open(o); err == nil || !strings.Contains(err.Error(), "belongs to shard 0") {
		t.Fatalf("another shard's directory gave %v", err)
	}
	o.Shard = 0
	f, err := fs.Create("/s/MANIFEST", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := shard.Open(o); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Fatalf("a damaged manifest gave %v", err)
	}
}

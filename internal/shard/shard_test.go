package shard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// machine is a state machine over a map whose only file is replaced by Flush, on the test's file system.
type machine struct {
	fs          vfs.FS
	dir         string
	beforeFlush func() error
	fail        *atomic.Bool // Apply fails while set

	mu      sync.Mutex
	data    map[string]string
	at      wire.Position
	durable uint64
}

func (m *machine) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %d\n", m.at.Generation, m.at.Offset)
	for k, v := range m.data {
		fmt.Fprintf(&b, "%q %q\n", k, v)
	}
	return b.Bytes()
}

func factory(fs vfs.FS, fail *atomic.Bool) shard.Factory {
	return func(e shard.Env) (shard.StateMachine, error) {
		m := &machine{fs: fs, dir: e.Dir, beforeFlush: e.BeforeFlush, fail: fail, data: map[string]string{}}
		if err := fs.MkdirAll(e.Dir, 0o755); err != nil {
			return nil, err
		}
		f, err := fs.Open(fs.PathJoin(e.Dir, "state"))
		if err != nil {
			return m, nil
		}
		defer f.Close()
		all, err := io.ReadAll(f)
		if err != nil {
			return nil, err
		}
		lines := strings.Split(strings.TrimSuffix(string(all), "\n"), "\n")
		gen, offset, _ := strings.Cut(lines[0], " ")
		if m.at.Generation, err = wire.ParseGeneration(gen); err != nil {
			return nil, err
		}
		fmt.Sscan(offset, &m.at.Offset)
		for _, l := range lines[1:] {
			var k, v string
			if _, err := fmt.Sscanf(l, "%q %q", &k, &v); err != nil {
				return nil, err
			}
			m.data[k] = v
		}
		m.durable = m.at.Offset
		return m, nil
	}
}

func (m *machine) Position() (wire.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at, nil
}

func (m *machine) Durable() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.durable, nil
}

func (m *machine) Apply(b wire.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail.Load() {
		return errors.New("apply fails as told")
	}
	m.at = b.At
	return b.Each(func(op wire.Op) error {
		switch op.Kind {
		case wire.OpPut:
			m.data[string(op.Key)] = string(op.Value)
		case wire.OpDelete:
			delete(m.data, string(op.Key))
		}
		return nil
	})
}

func (m *machine) write(dir string) (uint64, error) {
	m.mu.Lock()
	b, offset := m.encode(), m.at.Offset
	m.mu.Unlock()
	tmp := m.fs.PathJoin(dir, "state.tmp")
	f, err := m.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := m.fs.Rename(tmp, m.fs.PathJoin(dir, "state")); err != nil {
		return 0, err
	}
	d, err := m.fs.OpenDir(dir)
	if err != nil {
		return 0, err
	}
	return offset, errors.Join(d.Sync(), d.Close())
}

func (m *machine) Flush() error {
	if err := m.beforeFlush(); err != nil {
		return err
	}
	offset, err := m.write(m.dir)
	if err == nil {
		m.mu.Lock()
		m.durable = max(m.durable, offset)
		m.mu.Unlock()
	}
	return err
}

func (m *machine) Checkpoint(dir string) (wire.Position, error) {
	if err := m.fs.MkdirAll(dir, 0o755); err != nil {
		return wire.Position{}, err
	}
	at, _ := m.Position()
	_, err := m.write(dir)
	return at, err
}

func (m *machine) Close() error { return nil }

// put is a job of one mutation.
type put struct {
	key, value string
	done       chan error
	next       uint64
}

func (p *put) Run(g *shard.Group) bool {
	if g.Err != nil {
		return true
	}
	g.Builder.Put([]byte(p.key), []byte(p.value))
	g.Builder.End()
	return true
}

func (p *put) Committed(next uint64, err error) { p.next = next; p.done <- err }

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

// filledDir makes a checkpoint of source as it was at offset, which must be what it is at or 0.
func filledDir(t *testing.T, fs vfs.FS, dir string, source *shard.Shard, offset uint64) string {
	t.Helper()
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if offset == 0 {
		return dir
	}
	err := source.Use(func(m shard.StateMachine) error {
		mm := m.(*machine)
		f, err := fs.Create(fs.PathJoin(dir, "state"), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		_, err = f.Write(mm.encode())
		return errors.Join(err, f.Sync(), f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// A crash at any point of a switch leaves the old data or the new, with the position and lineage that belong to it.
func TestInstallIsAtomic(t *testing.T) {
	source := open(t, options(vfs.NewMem()))
	for i := range 7 {
		mustWrite(t, source, fmt.Sprint("new", i), "v")
	}
	sawOld, sawNew := false, false
	for stop := int32(0); ; stop++ {
		fs := vfs.NewCrashableMem()
		var crashed *vfs.MemFS
		var count atomic.Int32
		armed := false
		injected := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && count.Add(1) == stop+1 {
				crashed = fs.CrashClone(vfs.CrashCloneCfg{RNG: rng(uint64(stop))})
			}
			return nil
		}))
		o := options(injected)
		o.Open = factory(injected, new(atomic.Bool))
		o.KeepPrevious = "/kept/s"
		s := open(t, o)
		mustWrite(t, s, "old", "v")
		oldLineage := s.Lineage()
		staged := filledDir(t, fs, "/staged", source, 7)
		for _, dir := range []string{"/staged", "/"} {
			d, err := fs.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(d.Sync(), d.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Log().Sync(); err != nil {
			t.Fatal(err)
		}
		armed = true
		if err := s.Install(staged, source.Position(), source.Lineage()); err != nil {
			t.Fatal(err)
		}
		armed = false
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if crashed == nil {
			break // every operation had its turn
		}
		o.FS, o.Open = crashed, factory(crashed, new(atomic.Bool))
		again, err := shard.Open(o)
		if err != nil {
			t.Fatalf("crash before write operation %d: %v", stop, err)
		}
		got := data(t, again)
		switch {
		case again.Lineage().Equal(oldLineage) && len(got) == 1 && got["old"] == "v" && again.Position().Offset == 1:
			sawOld = true
		case again.Lineage().Equal(source.Lineage()) && len(got) == 7 && again.Position() == source.Position():
			sawNew = true
		default:
			t.Fatalf("crash before write operation %d: %v at %s on %s", stop, got, again.Position(), again.Lineage())
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !sawOld || !sawNew {
		t.Fatalf("the sweep saw the old data: %v, the new: %v; want both", sawOld, sawNew)
	}
}

// pitfalls 18, 19: a snapshot that does not load leaves the old data and the old position.
func TestInstallOfABadSnapshot(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, options(fs))
	mustWrite(t, s, "old", "v")
	at := s.Position()
	if err := fs.MkdirAll("/staged", 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create("/staged/state", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("garbage\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	l := wire.Lineage{{Generation: wire.Generation{9}, First: 0}}
	if err := s.Install("/staged", l.At(5), l); err == nil {
		t.Fatal("a snapshot that does not load was installed")
	}
	if s.Position() != at || data(t, s)["old"] != "v" {
		t.Fatalf("after a bad snapshot: %v at %s", data(t, s), s.Position())
	}
	mustWrite(t, s, "goes on", "v")
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

package keyspace_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/keyspace/kstest"
	"github.com/understudy-kv/understudy/internal/shard"
)

// faulty is a file system whose log writes, or syncs, fail for one shard while it is told to.
type faulty struct {
	shard      string
	write, syn atomic.Bool
}

func (f *faulty) String() string { return "faulty" }
func (f *faulty) MaybeError(op errorfs.Op) error {
	if !strings.Contains(op.Path, f.shard) || !strings.Contains(op.Path, "log-") {
		return nil
	}
	switch op.Kind {
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt:
		if f.write.Load() {
			return syscall.ENOSPC
		}
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		if f.syn.Load() {
			return syscall.EIO
		}
	}
	return nil
}

// keyOn gives a key that lies on the shard.
func keyOn(id, shards, n int) string {
	for i := 0; ; i++ {
		key := fmt.Sprintf("k%d", i)
		if engine.ShardOf(engine.Slot([]byte(key)), shards) == id {
			if n--; n < 0 {
				return key
			}
		}
	}
}

// A shard that cannot write says so to each client concerned, never OK, and stops nobody else: other shards write, and
// it reads. When there is room again it goes on by itself.
func TestDiskFull(t *testing.T) {
	f := &faulty{shard: "shard-001"}
	k := keyspace.New(keyspace.Options{})
	k.SetShards(kstest.Shards(t, 3, errorfs.Wrap(vfs.NewMem(), f), nil))
	s := k.NewSession(hook{})
	defer s.Close()
	bad, other := keyOn(1, 3, 0), keyOn(2, 3, 0)
	bad2 := keyOn(1, 3, 1)
	expect(t, s, "+OK|+OK|", "SET "+bad+" old", "SET "+other+" old")
	f.write.Store(true)
	isFull := func(what, got string) {
		t.Helper()
		if !strings.HasPrefix(got, "-MISCONF shard 1 takes no writes: ") || !strings.Contains(got, "no space left on device. Make room on its disk") {
			t.Errorf("%s: got %s", what, got)
		}
	}
	for round := range 3 { // the first time it fails by itself, later the shard is known to
		got := strings.Split(run(t, s, "GET "+bad, "SET "+bad+" new", "GET "+bad, "SET "+other+" "+fmt.Sprint(round), "GET "+bad, "GET "+other), "|")
		isFull("set", got[2])
		got[2] = ""
		want := fmt.Sprintf("$3 old  $3 old +OK $3 old $1 %d ", round)
		if strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", strings.Join(got, " "), want)
		}
	}
	isFull("mset", run(t, s, "MSET "+bad+" new "+other+" new"))
	expect(t, s, "$3|old|$3|new|", "GET "+bad, "GET "+other) // the other shard has its part, as the guarantees say
	isFull("rename", run(t, s, "RENAME "+other+" "+bad))
	isFull("flushall", run(t, s, "FLUSHALL"))
	exec := func(lines ...string) string {
		r := strings.Split(run(t, s, append(append([]string{"MULTI"}, lines...), "EXEC")...), "|")
		return r[1+len(lines)]
	}
	for _, lines := range [][]string{{"SET " + bad + " new"}, {"SET " + bad + " new", "SET " + bad2 + " new"}} {
		got := exec(lines...)
		isFull("exec", strings.Replace(got, "EXECABORT Transaction discarded because of: ", "", 1))
	}
	expect(t, s, "$3|old|", "GET "+bad)
	if got := exec("GET " + bad); got != "*1" {
		t.Errorf("a transaction that reads: %s", got)
	}
	if _, err := k.Do(t.Context(), "SET", bad, "new"); err == nil {
		t.Error("Do replied OK")
	}
	f.write.Store(false)
	eventually.True(t, 5*time.Second, "the shard takes writes again", func() bool { return run(t, s, "SET "+bad+" new") == "+OK|" })
	expect(t, s, "$3|new|", "GET "+bad)
}

// After a failed sync nobody knows what the disk holds: the shard takes no more writes, and says that.
func TestFailedSync(t *testing.T) {
	f := &faulty{shard: "shard-000"}
	k := keyspace.New(keyspace.Options{})
	shards := kstest.Shards(t, 2, errorfs.Wrap(vfs.NewMem(), f), func(o *shard.Options) { o.Fsync = shard.FsyncAlways })
	k.SetShards(shards)
	s := k.NewSession(hook{})
	defer s.Close()
	bad, other := keyOn(0, 2, 0), keyOn(1, 2, 0)
	expect(t, s, "+OK|+OK|", "SET "+bad+" old", "SET "+other+" old")
	f.syn.Store(true)
	for range 2 {
		got := run(t, s, "SET "+bad+" new", "GET "+other)
		if !strings.HasPrefix(got, "-MISCONF shard 0 takes no writes: ") || !strings.Contains(got, "Whether this write survives is not known") || !strings.HasSuffix(got, "|$3|old|") {
			t.Errorf("got %s", got)
		}
	}
	f.syn.Store(false)
	if got := run(t, s, "SET "+bad+" new"); !strings.HasPrefix(got, "-MISCONF") {
		t.Errorf("got %s", got)
	}
	expect(t, s, "$3|old|", "GET "+bad)
}

// Reads that share groups with failing writes of others are answered all the same.
func TestReadsBesideFailingWrites(t *testing.T) {
	f := &faulty{shard: "shard-000"}
	k := keyspace.New(keyspace.Options{})
	k.SetShards(kstest.Shards(t, 1, errorfs.Wrap(vfs.NewMem(), f), nil))
	s := k.NewSession(hook{})
	defer s.Close()
	expect(t, s, "+OK|", "SET r old")
	f.write.Store(true)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { // ended by stop, waited for below
			w := k.NewSession(hook{})
			defer w.Close()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := run(t, w, "SET r new", "SET w new"); strings.Contains(got, "+OK") {
					t.Errorf("got %s", got)
					return
				}
			}
		})
	}
	for begun := time.Now(); time.Since(begun) < 500*time.Millisecond; { // some periods after which a write is tried again
		if got := run(t, s, "GET r", "GET r"); got != "$3|old|$3|old|" {
			t.Errorf("got %s", got)
			break
		}
	}
	close(stop)
	wg.Wait()
	f.write.Store(false)
}

// A session whose shards are closed under it is told so and lives on.
func TestClosedShards(t *testing.T) {
	k := keyspace.New(keyspace.Options{})
	shards := kstest.Shards(t, 2, nil, nil)
	k.SetShards(shards)
	s := k.NewSession(hook{})
	defer s.Close()
	expect(t, s, "+OK|+OK|+OK|", "SET a 1", "SET b 1", "WATCH a b")
	for _, sh := range shards {
		if err := sh.Close(); err != nil {
			t.Fatal(err)
		}
	}
	const loading = "-LOADING Redis is loading the dataset in memory|"
	expect(t, s, strings.Repeat(loading, 5), "GET a", "SET b 2", "MSET a 1 b 2 c 3", "RENAME a b", "DBSIZE")
	expect(t, s, "+OK|+QUEUED|"+loading, "MULTI", "GET a", "EXEC")
	k.SetShards(nil)
	expect(t, s, loading+"+OK|", "GET a", "UNWATCH")
}

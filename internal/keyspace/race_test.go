package keyspace_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/keyspace/kstest"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// ask runs one pipeline and decodes its replies; it may be used on any goroutine.
func ask(s *keyspace.Session, lines ...string) []resp.Value {
	cmds := make([][][]byte, len(lines))
	for i, l := range lines {
		cmds[i] = words(l)
	}
	var out sink
	_, _ = s.Exec(cmds, &out)
	_ = out.Flush()
	r := resp.NewReader(bytes.NewReader(out.sent))
	values := make([]resp.Value, len(lines))
	for i := range values {
		values[i], _ = r.Read()
	}
	return values
}

// Money moves between accounts on several shards, guarded by WATCH; whoever looks at all accounts in a transaction sees
// the whole sum at any time, and no transfer that was confirmed is lost.
func TestTransfers(t *testing.T) {
	const accounts, shards, start = 6, 4, 1000
	k := open(t, shards, keyspace.Options{})
	seed := k.NewSession(hook{})
	defer seed.Close()
	var reads []string
	for i := range accounts {
		ask(seed, fmt.Sprintf("SET account:%d %d", i, start))
		reads = append(reads, fmt.Sprintf("GET account:%d", i))
	}
	var moved, aborted atomic.Int64
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() { // ends after its transfers, waited for below
			s := k.NewSession(hook{})
			defer s.Close()
			rng := rand.New(rand.NewPCG(uint64(w), 7))
			for range 100 {
				a, b := rng.IntN(accounts), rng.IntN(accounts)
				if a == b {
					continue
				}
				from, to := fmt.Sprintf("account:%d", a), fmt.Sprintf("account:%d", b)
				v := ask(s, "WATCH "+from+" "+to, "GET "+from, "GET "+to)
				x, _ := strconv.Atoi(v[1].Str)
				y, _ := strconv.Atoi(v[2].Str)
				v = ask(s, "MULTI", fmt.Sprintf("SET %s %d", from, x-1), fmt.Sprintf("SET %s %d", to, y+1), "INCR moved", "EXEC")
				if v[4].IsNull() {
					aborted.Add(1)
				} else if len(v[4].Elems) == 3 {
					moved.Add(1)
				} else {
					t.Errorf("got %v", v)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() { // ends after its looks, waited for below
			s := k.NewSession(hook{})
			defer s.Close()
			for range 100 {
				v := ask(s, append(append([]string{"MULTI"}, reads...), "EXEC")...)
				sum := 0
				for _, e := range v[len(v)-1].Elems {
					n, _ := strconv.Atoi(e.Str)
					sum += n
				}
				if sum != accounts*start {
					t.Errorf("the sum is %d: %v", sum, v[len(v)-1])
					return
				}
			}
		})
	}
	wg.Wait()
	if v := ask(seed, "GET moved")[0]; v.Str != fmt.Sprint(moved.Load()) {
		t.Errorf("%s transfers happened, %d were confirmed, %d aborted", v.Str, moved.Load(), aborted.Load())
	}
	if moved.Load() == 0 || aborted.Load() == 0 {
		t.Errorf("%d moved, %d aborted: the test shows nothing", moved.Load(), aborted.Load())
	}
}

// Renames, copies and transactions that hold several shards, in every direction at once, with pipelines between them,
// come to an end: shards are taken in ascending order.
func TestHoldsDoNotDeadlock(t *testing.T) {
	k := open(t, 5, keyspace.Options{})
	rounds := 150
	if testing.Short() {
		rounds = 50
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() { // ends after its commands, waited for below
			s := k.NewSession(hook{})
			defer s.Close()
			rng := rand.New(rand.NewPCG(uint64(w), 9))
			for range rounds {
				a, b, c := rng.IntN(50), rng.IntN(50), rng.IntN(50)
				ask(s, fmt.Sprintf("SET k%d v", a), fmt.Sprintf("RENAME k%d k%d", a, b), fmt.Sprintf("COPY k%d k%d REPLACE", b, c),
					fmt.Sprintf("WATCH k%d k%d", a, b), "MULTI", fmt.Sprintf("MSETNX k%d 1 k%d 2", c, a), "DBSIZE", "EXEC",
					fmt.Sprintf("MGET k%d k%d k%d", a, b, c), fmt.Sprintf("DEL k%d k%d", a, b), "KEYS k1*", "SCAN 0", "RANDOMKEY")
				if rng.IntN(20) == 0 {
					ask(s, "FLUSHALL")
				}
			}
		})
	}
	wg.Wait()
}

// clocked opens shards that live by the returned clock, in milliseconds since 1970.
func clocked(t *testing.T, n int) (*keyspace.Keyspace, *atomic.Int64) {
	var now atomic.Int64
	now.Store(time.Now().UnixMilli())
	clock := func() time.Time { return time.UnixMilli(now.Load()) }
	k := keyspace.New(keyspace.Options{Now: clock})
	k.SetShards(kstest.Shards(t, n, nil, func(o *shard.Options) { o.Now = clock }))
	return k, &now
}

// Expired keys are gone for readers at once, and deleted, by the primary only, soon after; a watched key that expires is
// a changed one, one that had expired before is not (pitfall 24).
func TestExpiry(t *testing.T) {
	k, now := clocked(t, 3)
	s := k.NewSession(hook{})
	defer s.Close()
	expect(t, s, "+OK|+OK|+OK|:2|", "SET a 1 PX 1000", "SET b 1", "WATCH a b nosuch", "EXISTS a b")
	k.SetReadOnly(true) // no reaper
	now.Add(1002)
	expect(t, s, "$-1|:0|:1|*1|$-1|", "GET a", "EXISTS a", "DBSIZE", "MGET a")
	expect(t, s, "+OK|+QUEUED|*-1|", "MULTI", "PING", "EXEC")
}

func TestReaper(t *testing.T) {
	k, now := clocked(t, 3)
	s := k.NewSession(hook{})
	defer s.Close()
	for i := range 100 {
		ask(s, fmt.Sprintf("SET gone%d v PX 1000", i), fmt.Sprintf("SET kept%d v PX 100000", i))
	}
	hidden := func() int64 {
		c, err := k.Count()
		if err != nil {
			t.Fatal(err)
		}
		return c.Expired
	}
	k.SetReadOnly(true)
	expect(t, s, "+OK|", "WATCH gone1")
	now.Add(1002)
	if n := hidden(); n != 100 {
		t.Errorf("%d keys are hidden, want 100: a replica deletes none by itself", n)
	}
	expect(t, s, "+OK|+QUEUED|*-1|", "MULTI", "PING", "EXEC")
	expect(t, s, "+OK|", "WATCH gone1") // expired already: its deletion will be no change
	k.SetReadOnly(false)
	eventually.True(t, 10*time.Second, "expired keys are deleted", func() bool { return hidden() == 0 })
	if n := k.Stats.Expired.Load(); n != 100 {
		t.Errorf("expired_keys is %d", n)
	}
	expect(t, s, "+OK|+QUEUED|*1|+PONG|:100|", "MULTI", "PING", "EXEC", "DBSIZE")
}

// On a replica, a watched key is changed by the frames that the primary sends.
func TestWatchOnReplica(t *testing.T) {
	primary := kstest.Shards(t, 1, nil, nil)[0]
	pk := keyspace.New(keyspace.Options{})
	pk.SetShards([]*shard.Shard{primary})
	ps := pk.NewSession(hook{})
	defer ps.Close()
	replica := kstest.Shards(t, 1, nil, func(o *shard.Options) { o.NewGeneration = primary.Lineage().Current })[0]
	if err := replica.Demote(); err != nil {
		t.Fatal(err)
	}
	rk := keyspace.New(keyspace.Options{})
	rk.SetShards([]*shard.Shard{replica})
	rk.SetReadOnly(true)
	rs := rk.NewSession(hook{})
	defer rs.Close()
	ship := func() {
		t.Helper()
		from := replica.Position().Offset
		var frames []byte
		err := primary.Log().Replay(from, func(f wire.Frame) error { frames = append(frames, f.Raw...); return nil })
		if err == nil {
			err = replica.Ingest(frames, from, primary.Position().Offset)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ change, want string }{
		{"SET k 1", "*-1|"}, {"SET other 1", "*1|+PONG|"}, {"DEL k", "*-1|"}, {"SET k 2", "*-1|"}, {"FLUSHALL", "*-1|"}, {"FLUSHALL", "*1|+PONG|"},
	} {
		expect(t, rs, "+OK|", "WATCH k")
		run(t, ps, c.change)
		ship()
		expect(t, rs, "+OK|+QUEUED|"+c.want, "MULTI", "PING", "EXEC")
	}
}

// What a session has written is known by shard, for WAIT.
func TestWritten(t *testing.T) {
	k := open(t, 3, keyspace.Options{})
	s, other := k.NewSession(hook{}), k.NewSession(hook{})
	defer s.Close()
	defer other.Close()
	at := func(key string) (id int, next wire.Position) {
		id = engine.ShardOf(engine.Slot([]byte(key)), 3)
		return id, k.Shards()[id].Position()
	}
	check := func(what string, keys ...string) {
		t.Helper()
		want := make([]wire.Position, 3)
		for _, key := range keys {
			id, next := at(key)
			want[id] = next
		}
		got := make([]wire.Position, 3)
		copy(got, s.Written())
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: wrote %v, want %v", what, got, want)
		}
	}
	a, b, c := keyOn(0, 3, 0), keyOn(1, 3, 0), keyOn(2, 3, 0)
	run(t, other, "MSET "+a+" 1 "+b+" 1 "+c+" 1")
	run(t, s, "GET "+a, "DEL nosuch")
	check("reads")
	run(t, s, "SET "+a+" 2")
	check("set", a)
	run(t, s, "RENAME "+a+" "+b)
	check("rename", a, b)
	run(t, s, "MULTI", "SET "+c+" 3", "EXEC")
	check("exec", a, b, c)
	run(t, other, "SET "+c+" 4")
	if _, next := at(c); s.Written()[2] == next {
		t.Error("another's write counts")
	}
}

// The reaper gets its turn, however much the clients ask for.
func TestReaperUnderLoad(t *testing.T) {
	k, now := clocked(t, 1)
	s := k.NewSession(hook{})
	defer s.Close()
	for i := range 100 {
		ask(s, fmt.Sprintf("SET gone%d v PX 1000", i))
	}
	now.Add(1002)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { // ended by stop, waited for below
			s := k.NewSession(hook{})
			defer s.Close()
			for {
				select {
				case <-stop:
					return
				default:
					ask(s, "SET busy v", "GET busy", "SET busy w", "GET busy")
				}
			}
		})
	}
	eventually.True(t, 10*time.Second, "expired keys are deleted", func() bool { return k.Stats.Expired.Load() == 100 })
	close(stop)
	wg.Wait()
}

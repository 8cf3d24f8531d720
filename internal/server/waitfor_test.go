package server

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/keyspace/kstest"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// pair is a primary and a node that follows it as far as the test ships.
type pair struct{ primary, replica *rig }

func startPair(t *testing.T, shards int) *pair {
	t.Helper()
	p := &pair{start(t, shards, nil), start(t, 0, nil)}
	list := kstest.Shards(t, shards, nil, func(o *shard.Options) { o.NewGeneration = p.primary.ks.Shards()[o.Shard].Lineage().Current })
	for _, s := range list {
		if err := s.Demote(); err != nil {
			t.Fatal(err)
		}
	}
	p.replica.ks.SetReadOnly(true)
	p.replica.ks.SetShards(list)
	p.replica.setStatus(replicaStatus())
	return p
}

// ship brings the replica to where the primary is.
func (p *pair) ship(t *testing.T) {
	t.Helper()
	for i, from := range p.primary.ks.Shards() {
		to := p.replica.ks.Shards()[i]
		first, next := to.Position().Offset, from.Position().Offset
		if first == next {
			continue
		}
		var frames []byte
		err := from.Log().Replay(first, func(f wire.Frame) error { frames = append(frames, f.Raw...); return nil })
		if err == nil {
			err = to.Ingest(frames, first, next)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rig) blocked(t testing.TB, n int) {
	t.Helper()
	eventually.True(t, 10*time.Second, fmt.Sprint(n, " wait"), func() bool {
		return strings.Contains(r.raw(t, "INFO clients"), fmt.Sprintf("|blocked_clients:%d|", n))
	})
}

// token asks for one.
func token(t testing.TB, c *commandtest.Conn, words ...string) string {
	t.Helper()
	_, got, ok := strings.Cut(string(c.Do(append([]string{"REPL.TOKEN"}, words...)...)), "\r\n")
	if !ok {
		t.Fatalf("REPL.TOKEN: %q", got)
	}
	return strings.TrimSuffix(got, "\r\n")
}

// background sends a command on a connection of its own, and waits until it waits.
func (r *rig) background(t testing.TB, words ...string) <-chan string {
	t.Helper()
	c := commandtest.Dial(t, r.addr, 2)
	done := make(chan string, 1)
	go func() { done <- string(c.Do(words...)) }() // ended by what the test does next, which waits for it
	r.blocked(t, 1)
	return done
}

func TestReadYourWrites(t *testing.T) {
	p := startPair(t, 3)
	w, other, r := commandtest.Dial(t, p.primary.addr, 2), commandtest.Dial(t, p.primary.addr, 2), commandtest.Dial(t, p.replica.addr, 2)
	is := func(c *commandtest.Conn, want string, words ...string) {
		t.Helper()
		if got := string(c.Do(words...)); !strings.HasPrefix(got, want) {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
	}
	w.Do("SET", "a", "1")
	first := token(t, w)
	done := p.replica.background(t, "REPL.WAITFOR", first, "0")
	p.ship(t)
	if got := <-done; got != "+OK\r\n" {
		t.Errorf("got %q", got)
	}
	is(r, "$1\r\n1", "GET", "a")
	is(r, "+OK", "REPL.WAITFOR", first, "0")

	w.Do("MSET", "a", "2", "b", "2", "c", "2", "d", "2")
	second := token(t, w)
	is(r, "-ERR shard ", "REPL.WAITFOR", second, "20")
	if got := string(r.Do("REPL.WAITFOR", second, "1")); !strings.Contains(got, " after 1ms, and the token is at ") {
		t.Errorf("got %q", got)
	}
	// What a connection wrote itself is less than what is published.
	is(r, "+OK", "REPL.WAITFOR", token(t, other, "OWN"), "1")
	is(r, "-ERR shard ", "REPL.WAITFOR", token(t, w, "OWN"), "1")
	// Within a transaction it only looks.
	is(r, "+OK", "MULTI")
	r.Do("REPL.WAITFOR", second, "0")
	is(r, "*1\r\n-ERR shard ", "EXEC")
	// On the node itself it is there.
	is(w, "+OK", "REPL.WAITFOR", second, "0")
	// A client that leaves is noticed.
	nc, err := net.Dial("tcp", p.replica.addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(nc, "REPL.WAITFOR %s 0\r\n", second)
	p.replica.blocked(t, 1)
	nc.Close()
	p.replica.blocked(t, 0)

	// The replica is promoted without what the token covers: who waits for it is told at once, and so is who asks later.
	done = p.replica.background(t, "REPL.WAITFOR", second, "0")
	for _, s := range p.replica.ks.Shards() {
		if _, err := s.Promote(); err != nil {
			t.Fatal(err)
		}
	}
	p.replica.ks.SetReadOnly(false)
	const gone = "what the token covers is lost"
	if got := <-done; !strings.Contains(got, gone) {
		t.Errorf("got %q", got)
	}
	if got := string(r.Do("REPL.WAITFOR", second, "0")); !strings.Contains(got, gone) {
		t.Errorf("got %q", got)
	}
	is(r, "+OK", "REPL.WAITFOR", first, "0") // that one is part of both histories
	for i := range 20 {
		r.Do("SET", fmt.Sprint("k", i), "the same offsets, other writes")
	}
	is(w, "-ERR shard ", "REPL.WAITFOR", token(t, r), "1") // a generation that this node has not heard of

	is(w, "-ERR the token is of 1 shards and this node has 3: ", "REPL.WAITFOR", token(t, commandtest.Dial(t, start(t, 1, nil).addr, 2)), "0")
	is(w, "-ERR this is no token", "REPL.WAITFOR", "x", "0")
	is(w, "-ERR timeout is negative", "REPL.WAITFOR", second, "-1")
	is(w, "-ERR timeout is not an integer", "REPL.WAITFOR", second, "x")
	is(w, "-ERR syntax error", "REPL.TOKEN", "x")
	empty := commandtest.Dial(t, start(t, 0, nil).addr, 2)
	is(empty, "-LOADING", "REPL.TOKEN")
	is(empty, "-LOADING", "REPL.WAITFOR", second, "1")
}

// A token that is taken while a new generation has no mutation yet asks for what was made before it: the generation may go
// again, and nobody else has it.
func TestTokenOfAGenerationInVain(t *testing.T) {
	p := startPair(t, 2)
	c, r := commandtest.Dial(t, p.primary.addr, 2), commandtest.Dial(t, p.replica.addr, 2)
	for i := range 20 {
		c.Do("SET", fmt.Sprint("k", i), "v")
	}
	p.ship(t)
	for i, s := range p.primary.ks.Shards() {
		if err := s.Demote(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Promote(); err != nil {
			t.Fatal(err)
		}
		if s.Position().Generation == p.replica.ks.Shards()[i].Position().Generation {
			t.Fatalf("shard %d has begun no generation", i)
		}
	}
	if got := string(r.Do("REPL.WAITFOR", token(t, c), "100")); got != "+OK\r\n" {
		t.Errorf("REPL.WAITFOR: %q", got)
	}
}

// Acks count for the history that a write was made in. The same offsets in another one are other writes (pitfalls 11 and
// 35).
func TestWaitCountsOneHistory(t *testing.T) {
	fs := vfs.NewMem()
	other := kstest.Shards(t, 1, fs, func(o *shard.Options) { o.Dir = "other" })[0]
	r, o := start(t, 0, nil), start(t, 0, nil)
	mine := kstest.Shards(t, 1, fs, nil)[0]
	r.ks.SetShards([]*shard.Shard{mine})
	o.ks.SetShards([]*shard.Shard{other})
	for range 5 {
		o.raw(t, "INCR n")
	}
	c := commandtest.Dial(t, r.addr, 2)
	c.Do("SET", "a", "1")
	r.node.ack(2)
	if got := string(c.Do("WAIT", "1", "1")); got != ":2\r\n" {
		t.Fatalf("got %q", got)
	}
	waiter := commandtest.Dial(t, r.addr, 2)
	waiter.Do("SET", "a", "2")
	done := make(chan string, 1)
	go func() { done <- string(waiter.Do("WAIT", "3", "0")) }() // ended by the ack below, and waited for
	r.blocked(t, 1)

	// The node follows another one for a while, and comes back.
	r.ks.SetReadOnly(true)
	if err := mine.Demote(); err != nil {
		t.Fatal(err)
	}
	at, err := other.Checkpoint("snapshot")
	if err == nil {
		err = mine.Install("snapshot", at, other.Lineage())
	}
	if err == nil {
		_, err = mine.Promote()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.ks.SetReadOnly(false)
	r.node.ack(3)
	if got := <-done; got != ":0\r\n" {
		t.Errorf("a WAIT through two changes of role: %q", got)
	}
	for _, x := range []struct{ want, words string }{
		{":0\r\n", "WAIT 0 1"}, {":0\r\n", "WAIT 1 1"}, {"*2\r\n:0\r\n:0\r\n", "WAITAOF 0 1 1"}, {"+OK\r\n", "SET a 3"}, {":3\r\n", "WAIT 1 1"},
	} {
		if got := string(c.Do(strings.Fields(x.words)...)); got != x.want {
			t.Errorf("%s: %q, want %q", x.words, got, x.want)
		}
	}
}

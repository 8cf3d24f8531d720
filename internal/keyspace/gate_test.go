package keyspace_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/shard"
)

var errLeft = errors.New("the client has left")

// waiting is a connection that tells when it waits at the gate, and that can leave.
type waiting struct {
	hook
	holds atomic.Int32
	leave chan struct{}
}

func (w *waiting) Hold(released <-chan struct{}) error {
	w.holds.Add(1)
	select {
	case <-released:
		return nil
	case <-w.leave:
		return errLeft
	}
}

// held executes the lines on a session of its own, beside the test.
type held struct {
	*waiting
	out  sink
	done chan error
}

func hold(k *keyspace.Keyspace, lines ...string) *held {
	h := &held{waiting: &waiting{leave: make(chan struct{})}, done: make(chan error, 1)}
	cmds := make([][][]byte, len(lines))
	for i, l := range lines {
		cmds[i] = words(l)
	}
	// Ended by the gate's release or by leave; the test waits for it at done.
	go func() {
		s := k.NewSession(h.waiting)
		defer s.Close()
		_, err := s.Exec(cmds, &h.out)
		_ = h.out.Flush()
		h.done <- err
	}()
	return h
}

func (h *held) reply(t *testing.T) string {
	t.Helper()
	select {
	case err := <-h.done:
		if err != nil && !errors.Is(err, errLeft) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for ever")
	}
	return strings.ReplaceAll(string(h.out.sent), "\r\n", "|")
}

func offsets(k *keyspace.Keyspace) (at []uint64) {
	for _, s := range k.Shards() {
		at = append(at, s.Position().Offset)
	}
	return at
}

const readOnly = "-READONLY You can't write against a read only replica.|"

// Whatever writes waits, and what its connection sent behind it; then it happens, or is refused if the role has changed,
// or does not happen if the client has left. Reads of others go on.
func TestHeldWrites(t *testing.T) {
	for _, c := range []struct {
		name, lines    string
		before         string // replies that are sent although writes are held
		after, refused string // behind the release, as a primary and as a replica
	}{
		{"one shard", "GET a;INCR n;GET n", "$1|1|", ":1|$1|1|", readOnly + "$-1|"},
		{"split", "GET a;MSET b 1 c 2 d 3;MGET b c d", "$1|1|", "+OK|*3|$1|1|$1|2|$1|3|", readOnly + "*3|$-1|$-1|$-1|"},
		{"across", "GET a;RENAME a z;GET z", "$1|1|", "+OK|$1|1|", readOnly + "$-1|"},
		{"msetnx", "MSETNX b 1 c 2 d 3", "", ":1|", readOnly},
		{"flush", "PING;FLUSHALL;DBSIZE", "+PONG|", "+OK|:0|", readOnly + ":1|"},
		{"transaction on one shard", "MULTI;INCR n;GET n;EXEC", "+OK|+QUEUED|+QUEUED|", "*2|:1|$1|1|",
			"-EXECABORT Transaction discarded because of: " + strings.TrimPrefix(readOnly, "-")},
		{"transaction on several", "WATCH a;MULTI;SET b 1;RENAME a z;PING;EXEC;GET z", "+OK|+OK|+QUEUED|+QUEUED|+QUEUED|", "*3|+OK|+OK|+PONG|$1|1|",
			"-EXECABORT Transaction discarded because of: " + strings.TrimPrefix(readOnly, "-") + "$-1|"},
		{"without replies", "CLIENT REPLY OFF;SET a 2;GET a", "-ERR hook: client|reply|", "+OK|$1|2|", readOnly + "$1|1|"},
	} {
		for _, end := range []string{"writable", "read-only", "left"} {
			t.Run(c.name+"/"+end, func(t *testing.T) {
				k := open(t, 3, keyspace.Options{})
				other := k.NewSession(hook{})
				defer other.Close()
				expect(t, other, "+OK|", "SET a 1")
				release := k.HoldWrites()
				defer release()
				h := hold(k, strings.Split(c.lines, ";")...)
				eventually.True(t, 10*time.Second, "it waits", func() bool { return h.holds.Load() > 0 })
				if err := k.Quiesce(t.Context()); err != nil {
					t.Fatal(err)
				}
				at := fmt.Sprint(offsets(k))
				expect(t, other, "$1|1|:1|+OK|+QUEUED|*1|$1|1|", "GET a", "DBSIZE", "MULTI", "GET a", "EXEC")
				want := c.before
				switch end {
				case "writable":
					want += c.after
				case "read-only":
					k.SetReadOnly(true)
					want += c.refused
				case "left":
					close(h.leave)
					if got := h.reply(t); got != want {
						t.Errorf("replies %s, want %s", got, want)
					}
				}
				release()
				release() // a second time is nothing
				if end != "left" {
					if got := h.reply(t); got != want {
						t.Errorf("replies %s, want %s", got, want)
					}
				}
				if now := fmt.Sprint(offsets(k)); end != "writable" && now != at {
					t.Errorf("the shards went from %s to %s", at, now)
				}
			})
		}
	}
}

// The gate opens when the last of those who closed it lets go.
func TestClosingsOverlap(t *testing.T) {
	k := open(t, 2, keyspace.Options{})
	first, second := k.HoldWrites(), k.HoldWrites()
	first()
	first()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { // ended by the cancel below
		_, err := k.Do(ctx, "SET", "a", "1")
		done <- err
	}()
	for range 100 {
		if err := k.Quiesce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a held Do ended with %v", err)
	}
	second()
	if _, err := k.Do(t.Context(), "SET", "a", "1"); err != nil {
		t.Error(err)
	}
}

// Once Quiesce has returned, nothing is written any more, whatever was on its way: pipelines that were planned before the
// gate was closed, parts that stopped for their replies, exclusive sections that hold some of their shards already.
func TestNothingPassesAClosedGate(t *testing.T) {
	const shards = 3
	k := open(t, shards, keyspace.Options{ReplyBytes: 1 << 10})
	var stop atomic.Bool
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop.Store(true)
	for w := range 4 {
		s := k.NewSession(hook{})
		// Writers of every kind, ended by stop, and waited for.
		writers.Go(func() {
			defer s.Close()
			for i := 0; !stop.Load(); i++ {
				run(t, s, fmt.Sprintf("SET k%d %d", i%9, i), "GET k1", fmt.Sprintf("MSET a%d 1 b%d 2 c%d 3", i, i, i), "INCR n",
					fmt.Sprintf("RENAME a%d z%d", i, w), "MULTI", "INCR x", "INCR y", "EXEC", "MULTI", "INCR x", "EXEC", "FLUSHALL")
			}
		})
	}
	for i := range 40 {
		release := k.HoldWrites()
		for range 2 {
			if err := k.Quiesce(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		at := fmt.Sprint(offsets(k))
		for range 20 { // what had passed would be committed by then
			if err := k.Quiesce(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if now := fmt.Sprint(offsets(k)); now != at {
			t.Fatalf("hold %d: the shards went from %s to %s", i, at, now)
		}
		release()
		s := k.NewSession(hook{})
		run(t, s, "INCR n")
		s.Close()
	}
}

// The deletes of expired keys are writes, too.
func TestTheReaperIsHeld(t *testing.T) {
	k, now := clocked(t, 1)
	s := k.NewSession(nil)
	defer s.Close()
	expect(t, s, "+OK|", "SET a 1 PX 1000")
	release := k.HoldWrites()
	at := fmt.Sprint(offsets(k))
	now.Add(5000)
	k.Tick()
	if got := fmt.Sprint(offsets(k)); got != at {
		t.Errorf("the shard went from %s to %s", at, got)
	}
	release()
	k.Tick()
	if n := k.Stats.Expired.Load(); n != 1 {
		t.Errorf("%d keys were reaped behind the release, want 1", n)
	}
}

// A write that was planned while the node was a primary is refused by the loop once it is not (pitfall 28).
func TestRefusals(t *testing.T) {
	k := open(t, 3, keyspace.Options{})
	s := k.NewSession(hook{})
	defer s.Close()
	expect(t, s, "+OK|", "SET a 1")
	for _, c := range []struct {
		name  string
		set   func(bool)
		reply string // of a write
		read  string
	}{
		{"read-only", k.SetReadOnly, strings.TrimSuffix(strings.TrimPrefix(readOnly, "-"), "|"), "$1|1|"},
		{"no replicas", k.SetNoReplicas, "NOREPLICAS Not enough good replicas to write.", "$1|1|"},
	} {
		c.set(true)
		expect(t, s, "-"+c.reply+"|"+c.read+"-"+c.reply+"|-"+c.reply+"|"+c.read, "SET a 2", "GET a", "RENAME a b", "MSET x 1 y 2 z 3", "GET a")
		expect(t, s, "+OK|+QUEUED|-"+c.reply+"|-EXECABORT Transaction discarded because of previous errors.|", "MULTI", "GET a", "SET a 2", "EXEC")
		expect(t, s, "-ERR wrong number of arguments for 'set' command|", "SET a")
		c.set(false)
		expect(t, s, "+OK|+QUEUED|", "MULTI", "SET a 1")
		c.set(true)
		expect(t, s, "-EXECABORT Transaction discarded because of: "+c.reply+"|", "EXEC")
		c.set(false)
	}
	const old = "-STALE this replica's data may be more than 1.5s old, which replica-max-staleness does not allow: read from another node, or wait|"
	k.SetTooOld(1500 * time.Millisecond)
	expect(t, s, "$1|1|", "GET a") // a primary's data is never too old
	k.SetReadOnly(true)
	expect(t, s, "+PONG|"+old+readOnly+"+OK|"+old+readOnly+"-EXECABORT Transaction discarded because of previous errors.|",
		"PING", "GET a", "SET a 1", "MULTI", "DBSIZE", "SET a 1", "EXEC")
	k.SetTooOld(0)
	expect(t, s, "$1|1|", "GET a")
}

// parked is a job that keeps a shard's loop until it is let go.
type parked struct{ running, letGo chan struct{} }

func (p *parked) Run(*shard.Group) bool {
	close(p.running)
	<-p.letGo
	return true
}
func (p *parked) Committed(uint64, error) {}

// park keeps the loop of shard id.
func park(t *testing.T, k *keyspace.Keyspace, id int) (letGo func()) {
	t.Helper()
	p := &parked{make(chan struct{}), make(chan struct{})}
	if err := k.Shards()[id].Submit(p); err != nil {
		t.Fatal(err)
	}
	<-p.running
	return sync.OnceFunc(func() { close(p.letGo) })
}

// What was planned and sent to the shards while the gate was open, and has not run when it is closed, is held: an exclusive
// section that comes to its second shard behind the barrier there would write behind Quiesce.
func TestPlannedBeforeTheGateWasClosed(t *testing.T) {
	for _, lines := range []string{"SET a 1", "MSET a 1 b 2 c 3 d 4", "RENAME a b", "FLUSHALL", "MULTI;SET a 1;EXEC", "MULTI;SET a 1;SET b 1;SET c 1;EXEC"} {
		t.Run(lines, func(t *testing.T) {
			k := open(t, 2, keyspace.Options{})
			letGo := [...]func(){park(t, k, 0), park(t, k, 1)}
			cmds := strings.Split(lines, ";")
			h := hold(k, cmds...)
			eventually.True(t, 10*time.Second, "it was looked at", func() bool { return k.Stats.Commands.Load() == uint64(len(cmds)) })
			release := k.HoldWrites()
			defer release()
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if err := k.Quiesce(ended); !errors.Is(err, context.Canceled) {
				t.Errorf("Quiesce with shards at work: %v", err)
			}
			letGo[0]()
			letGo[1]()
			eventually.True(t, 10*time.Second, "it is held", func() bool { return h.holds.Load() > 0 })
			if err := k.Quiesce(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(offsets(k)); got != "[0 0]" {
				t.Errorf("the shards are at %s", got)
			}
			k.SetReadOnly(true)
			release()
			if got := h.reply(t); !strings.Contains(got, "READONLY You can't write against a read only replica.|") {
				t.Errorf("replies %s", got)
			}
		})
	}
}

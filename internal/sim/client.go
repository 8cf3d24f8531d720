package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// client is a connection to one process. It is the session's hook and its sink.
type client struct {
	run *incarnation
	w   resp.Writer
}

var errGone = errors.New("the process is gone")

func (c *client) Command(_ *command.Command, _ [][]byte, w *resp.Writer) bool {
	w.Error("ERR not here")
	return false
}

func (c *client) Hold(released <-chan struct{}) error {
	select {
	case <-released:
		return nil
	case <-c.run.gone:
		return errGone
	}
}

func (c *client) Writer() *resp.Writer { return &c.w }
func (c *client) Flush() error         { return nil }
func (c *client) Send(b []byte) error  { c.w.Buf = append(c.w.Buf, b...); return nil }

// argv draws a command.
func argv(rng *rand.Rand, large bool) []string {
	key := func() string { return fmt.Sprint("k", rng.IntN(24)) }
	value := func() string {
		v := fmt.Sprintf("%x", rng.Uint64())
		if large && rng.IntN(2) == 0 {
			v += strings.Repeat("v", rng.IntN(3000))
		}
		return v
	}
	switch n := rng.IntN(40); {
	case n < 16:
		return []string{"SET", key(), value()}
	case n < 18:
		return []string{"SET", key(), value(), "PX", fmt.Sprint(50 + rng.IntN(5000))}
	case n < 23:
		return []string{"INCR", fmt.Sprint("c", rng.IntN(4))}
	case n < 26:
		return []string{"DEL", key(), key()}
	case n < 30:
		return []string{"MSET", key(), value(), key(), value(), key(), value()}
	case n < 33:
		return []string{"APPEND", key(), fmt.Sprint(rng.IntN(1000))}
	case n < 35:
		return []string{"EXPIRE", key(), fmt.Sprint(1 + rng.IntN(10))}
	case n < 36:
		return []string{"RENAME", key(), key()}
	case n < 38:
		return []string{"MSETNX", key(), value(), key(), value()}
	case n < 39:
		return []string{"PERSIST", key()}
	}
	if rng.IntN(3) > 0 {
		return []string{"GETDEL", key()}
	}
	return []string{"FLUSHALL"}
}

// write sends a few commands to a host and, if asked to, waits for replicas behind them.
func (w *world) write(h *host, st Step) {
	rng := st.rng()
	n := 1 + rng.IntN(6)
	if w.sc.Small && rng.IntN(4) == 0 {
		n += 30
	}
	var cmds [][]string
	for range n {
		cmds = append(cmds, argv(rng, w.sc.Small))
	}
	c := &client{run: h.run}
	s := h.run.node().Keyspace().NewSession(c)
	defer s.Close()
	var hold *shard.Hold
	if rng.IntN(2) == 0 { // as a reactor that has many clients
		hold = new(shard.Hold)
		late := time.Duration(rng.IntN(3000)) * time.Microsecond
		defer func() {
			time.Sleep(late)
			hold.Announce()
		}()
	}
	done, refused := 0, ""
	for _, args := range cmds {
		raw := make([][]byte, len(args))
		for i, a := range args {
			raw[i] = []byte(a)
		}
		c.w.Buf = c.w.Buf[:0]
		err := c.exec(s, [][][]byte{raw}, hold)
		if c.run.dead.Load() {
			break // whatever it says, nobody hears it
		}
		if err != nil || len(c.w.Buf) > 0 && c.w.Buf[0] == '-' {
			refused = reason(c.w.Buf, err)
			continue
		}
		done++
		w.replied(h, c.run, s.Written())
	}
	if refused != "" {
		refused = "; the last refusal: " + refused
	}
	w.event("%s did %d of %d commands%s", h.name, done, n, refused)
	if st.Kind == Wait && done > 0 && !c.run.dead.Load() {
		w.wait(h, c.run, s.Written(), rng)
	}
}

// exec executes the commands as a goroutine of the connection does, or with a hold as a reactor does.
func (c *client) exec(s *keyspace.Session, cmds [][][]byte, hold *shard.Hold) error {
	planned := s.Begin(cmds, c)
	if hold != nil && planned == len(cmds) && !s.Syncs() {
		s.Offer()
		s.Execute(hold)
		if s.Settle(c) {
			return nil
		}
	}
	_, err := s.Finish(cmds[planned:], c)
	return err
}

func reason(reply []byte, err error) string {
	if err != nil {
		return err.Error()
	}
	text, _, _ := strings.Cut(string(reply[1:]), "\r\n")
	word, _, _ := strings.Cut(text, " ")
	return word
}

// replied notes what a reply has promised.
func (w *world) replied(h *host, i *incarnation, written []wire.Position) {
	shards := i.shards()
	for s, p := range written {
		if p.IsZero() || s >= len(shards) {
			continue
		}
		made := promise{lineage: shards[s].Lineage().Until(p.Offset), applied: p.Offset, why: "a write there was answered"}
		if w.sc.Fsync == "always" {
			made.durable = p.Offset
		}
		if made.lineage.At(p.Offset) == p {
			w.promise(place{h.id, s}, made)
		}
	}
}

// wait is WAIT, or WAITAOF with one local copy.
func (w *world) wait(h *host, i *incarnation, written []wire.Position, rng *rand.Rand) {
	want := 1 + rng.IntN(max(1, w.sc.Nodes-1))
	level, name := slottable.Applied, "WAIT"
	if rng.IntN(2) == 0 {
		level, name = slottable.Durable, "WAITAOF"
	}
	offsets := make([]uint64, len(written))
	for s, p := range written {
		offsets[s] = p.Offset
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rng.IntN(2000))*time.Millisecond)
	defer cancel()
	got := i.node().WaitAcked(ctx, offsets, want, level)
	shards := i.shards()
	for s, p := range written {
		if p.IsZero() {
			continue
		}
		if s >= len(shards) || i.dead.Load() || !shards[s].Lineage().Contains(p, shards[s].Position().Offset) {
			w.event("%s %s %d: the history has changed", h.name, name, want)
			return
		}
	}
	w.event("%s %s %d: %d", h.name, name, want, got)
	if i.node().Role() != store.Primary {
		return
	}
	if seen := w.witnesses(i, written, level == slottable.Durable); seen < got {
		w.fail(2, "%s told a client that %d replicas have its write, %d have said so (%s)", h.name, got, seen, name)
	}
}

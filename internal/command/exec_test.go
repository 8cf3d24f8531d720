package command

import (
	"bytes"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/wire"
)

// executor runs commands against engines in memory, as the shards of a node would: a mutation a command, some mutations
// a group, groups applied. With one shard handlers are bound to it, with more they are routed.
type executor struct {
	t      testing.TB
	shards []*testShard
	now    int64 // 0 is the real time
	group  uint64
	out    resp.Writer
	ctx    Ctx
	n      int
	// every is how many commands make a group.
	every int
}

type testShard struct {
	e    *engine.Engine
	b    wire.Builder
	next uint64
}

func newExecutor(t testing.TB, shards int) *executor {
	x := &executor{t: t, group: 1, every: 7}
	x.out.Proto = 2
	for range shards {
		e, err := engine.Open("engine", engine.Options{FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		s := &testShard{e: e}
		s.b.Reset()
		x.shards = append(x.shards, s)
	}
	return x
}

func (x *executor) txOf(key []byte) *engine.Tx {
	return x.shards[engine.ShardOf(engine.Slot(key), len(x.shards))].e.Tx()
}

// do runs a command and returns its reply, valid until the next one.
func (x *executor) do(args [][]byte) []byte {
	x.t.Helper()
	x.out.Buf = x.out.Buf[:0]
	c, text := Find(args)
	if c == nil {
		x.out.Error(text)
		return x.out.Buf
	}
	now := x.now
	if now == 0 {
		now = time.Now().UnixMilli()
	}
	// Twice, the first time for nothing: the effects of a command are those of its arguments, the data and the time given,
	// and of nothing else (pitfall 23).
	first, reply, _ := x.run(c, args, now, false)
	x.out.Buf = x.out.Buf[:0]
	second, again, wrote := x.run(c, args, now, true)
	if !bytes.Equal(first, second) || !bytes.Equal(reply, again) {
		x.t.Fatalf("%q: %q with effects %q, then %q with effects %q", args, reply, first, again, second)
	}
	// A command that failed has written nothing (pitfall 22), and so has one that only reads.
	if wrote && (again[0] == '-' || c.Flags&Write == 0) {
		x.t.Fatalf("%q replied %q and wrote %q", args, again, second)
	}
	if x.n++; x.n%x.every == 0 {
		x.commit()
	}
	return again
}

// run executes one mutation on every shard and returns what it added to their frames, and its reply.
func (x *executor) run(c *Command, args [][]byte, now int64, keep bool) (effects, reply []byte, wrote bool) {
	x.t.Helper()
	marks := make([]int, len(x.shards))
	for i, s := range x.shards {
		marks[i] = s.b.Len()
		s.e.Tx().Begin(&s.b, x.group, now)
	}
	if len(x.shards) == 1 {
		x.ctx.Bind(x.shards[0].e.Tx(), &x.out)
	} else {
		x.ctx.Route(x.txOf, &x.out)
	}
	x.ctx.Args = args
	c.Run(&x.ctx)
	for i, s := range x.shards {
		if err := s.e.Tx().Err(); err != nil {
			x.t.Fatalf("%q: %v", args, err)
		}
		effects = append(effects, s.b.Bytes(marks[i], s.b.Len())...)
		if !keep {
			s.e.Tx().Rollback()
		} else if s.e.Tx().End() {
			wrote = true
		}
	}
	return effects, bytes.Clone(x.out.Buf), wrote
}

// commit applies what the group wrote and begins another.
func (x *executor) commit() {
	x.t.Helper()
	for _, s := range x.shards {
		if s.b.Count() > 0 {
			raw, err := s.b.Finish(s.next, 1)
			if err != nil {
				x.t.Fatal(err)
			}
			b := wire.Batch{Frames: raw, First: s.next, At: wire.Position{Generation: wire.Generation{1}, Offset: s.next + uint64(s.b.Count())}}
			if err := s.e.Apply(b); err != nil {
				x.t.Fatal(err)
			}
			s.next = b.At.Offset
		}
		s.b.Reset()
	}
	x.group++
}

func words(ws ...string) [][]byte {
	args := make([][]byte, len(ws))
	for i, w := range ws {
		args[i] = []byte(w)
	}
	return args
}

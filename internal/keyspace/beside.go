package keyspace

import (
	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

// A command that reads one key needs no place in the order of its shard: a write is applied before its reply leaves, so what
// the engine has when the command arrives is a state between those replies. Such a command is executed at once, on the
// session's goroutine, beside the shard's turn. It is not where it could see too little: behind what the same pipeline
// asks of the same shard, and within a transaction. Commands over several keys go the long way, since a group on their
// shard may be applied between two of their reads.

// reads are a pipeline's reads beside the shards.
type reads struct {
	ctx  command.Ctx
	of   []reading // by shard; short where nothing was read yet
	open []int     // shards whose readers have begun
	out  resp.Writer
}

// reading is what is read of one shard.
type reading struct {
	reader engine.Reader
	begun  bool
}

// readBeside executes the command if it can be executed beside its shard, and reports whether it did.
func (s *Session) readBeside(c *command.Command, args [][]byte, sink Sink) bool {
	if c.Flags&command.ReadOnly == 0 {
		return false
	}
	first, last, _ := c.Keys(len(args))
	if first == 0 || first != last || len(s.on.shards) == 0 || s.on.selective() && s.on.refusal(c) != "" {
		return false
	}
	id := 0
	if len(s.on.shards) > 1 {
		id = s.shardOf(args[first])
	}
	planned := len(s.plan) > 0
	if planned && (id < len(s.byID) && s.byID[id] != nil || len(s.lit) >= s.ks.opts.ReplyBytes) {
		return false
	}
	r := s.reader(id)
	if r == nil {
		return false
	}
	w := sink.Writer()
	if planned {
		w = &s.reads.out
		w.Buf, w.Proto = s.lit, s.Proto
	}
	begun := len(w.Buf)
	ctx := &s.reads.ctx
	ctx.BindReader(r, w)
	ctx.Args = args
	c.Run(ctx)
	if err := r.Err(); err != nil {
		w.Buf = w.Buf[:begun]
		w.Error(readErrorText(id, err))
	}
	if w.Buf[begun] == '-' {
		s.ks.noteError(w.Buf[begun:])
	}
	if ctx.Hits|ctx.Misses != 0 {
		s.on.tables[id].lookups.add(ctx.Hits, ctx.Misses)
		ctx.Hits, ctx.Misses = 0, 0
	}
	if planned {
		s.lit = w.Buf
		w.Buf = nil
		s.plan = append(s.plan, entry{from: begun, to: len(s.lit)})
	}
	return true
}

// reader is the reader of a shard, for the rest of the pipeline; nil if the shard cannot be read beside its turn now.
func (s *Session) reader(id int) *engine.Reader {
	if n := len(s.on.shards); len(s.reads.of) < n {
		s.endReads()
		s.reads.of = append(s.reads.of, make([]reading, n-len(s.reads.of))...)
	}
	r := &s.reads.of[id]
	if r.begun {
		return &r.reader
	}
	on := s.on.shards[id]
	e, _ := on.Live().(*engine.Engine)
	if e == nil || r.reader.Begin(e, on.Now()) != nil {
		return nil // it is being closed, or replaced: the shard's turn knows what to answer
	}
	r.begun = true
	s.reads.open = append(s.reads.open, id)
	return &r.reader
}

// endReads gives up what the readers hold. A switch to another engine waits for that, so it comes before anything that
// may take long.
func (s *Session) endReads() {
	for _, id := range s.reads.open {
		s.reads.of[id].reader.End()
		s.reads.of[id].begun = false
	}
	s.reads.open = s.reads.open[:0]
	s.reads.ctx.Args = nil
}

package keyspace

import (
	"slices"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
)

// transaction is one EXEC at work, or one command that concerns several shards.
type transaction struct {
	s      *Session
	steps  []step
	w      *resp.Writer
	begun  int // length of w.Buf before the reply
	end    bool
	grips  []*grip // by shard id; nil where the transaction has no business
	ctx    command.Ctx
	single bool // one command, not an EXEC: its reply stands alone
	writes bool // a step of it writes
}

// maxReply bounds what one command or transaction may reply.
const maxReply = command.MaxReply

// onOne runs the transaction on the loop of its only shard.
func (t *transaction) onOne(id int) {
	s := t.s
	h := &grip{id: id}
	t.grips = make([]*grip, id+1)
	t.grips[id] = h
	o := onLoop(s.on.shards[id], func(g *shard.Group) bool {
		t.w.Buf = t.w.Buf[:t.begun]
		if g.Full() {
			return false
		}
		h.take(g, s.on.tables[id])
		alone := g.Builder.Count() == 0
		t.ctx.Bind(h.tx, t.w)
		if !t.run() && !alone {
			return false // it is too large for what is left of this group
		}
		return true
	})
	switch {
	case s.held:
	case o.err != nil:
		t.fail(id, o.err)
	case h.wrote:
		s.noteWritten(id, o.at)
	}
}

// onSeveral runs the transaction on the session's goroutine, with the shards held.
func (t *transaction) onSeveral(ids []int) {
	s := t.s
	holds, id, err := s.acquire(ids)
	if err != nil {
		t.fail(id, err)
		return
	}
	t.grips = make([]*grip, len(s.on.shards))
	for _, h := range holds {
		t.grips[h.id] = &h.grip
	}
	t.ctx.Route(t.txOf, t.w)
	t.run()
	if id, err := s.letGo(holds); err != nil {
		t.fail(id, err)
	}
}

func writes(steps []step) bool {
	return slices.ContainsFunc(steps, func(st step) bool { return st.cmd.Flags&command.Write != 0 })
}

// txOf is the transaction of the shard that a key lives on.
func (t *transaction) txOf(key []byte) *engine.Tx { return t.grips[t.s.shardOf(key)].tx }

// fail replaces the reply by an error. On several shards, some may have taken their part.
func (t *transaction) fail(id int, err error) {
	t.w.Buf = t.w.Buf[:t.begun]
	t.w.Error(shardErrorText(id, err))
}

// run executes the steps, unless they write and the gate is closed: then the session's held is set. It returns false, with
// nothing written, if they are too large for the groups that they got.
func (t *transaction) run() bool {
	s := t.s
	if t.writes && s.ks.set.Load().gate != nil {
		s.held = true
		return true
	}
	if !t.single && s.watchedChanged(t.grips) {
		s.ks.Stats.Aborted.Add(1)
		t.w.NullArray()
		return true
	}
	if text := t.fenced(); text != "" {
		if !t.single {
			text = execAbort + text
		}
		t.w.Error(text)
		return true
	}
	t.each((*grip).begin)
	if !t.single {
		t.w.Array(len(t.steps))
	}
	for _, st := range t.steps {
		begun := len(t.w.Buf)
		t.step(st)
		if !t.single { // a single command's reply is counted with those outside of transactions
			s.noteError(t.w, begun)
		}
		if text, large := t.spoiled(); text != "" {
			t.each(func(h *grip) { h.tx.Rollback() })
			t.w.Buf = t.w.Buf[:t.begun]
			t.w.Error(text)
			return !large
		}
	}
	for _, h := range t.grips {
		if h != nil {
			h.watch.lookups.add(t.ctx.Hits, t.ctx.Misses)
			break
		}
	}
	t.each(func(h *grip) { h.wrote = h.tx.End() })
	return true
}

// step runs one command.
func (t *transaction) step(st step) {
	switch whole := wholes[st.cmd.Name]; {
	case st.cmd.Run != nil:
		t.ctx.Args = st.args
		st.cmd.Run(&t.ctx)
	case whole != nil:
		whole(&spread{s: t.s, args: st.args, w: t.w, within: t}) // if it breaks off, spoiled finds out why
	case st.cmd.Name == "flushall", st.cmd.Name == "flushdb":
		if flushArgs(st.args, t.w) {
			t.each(func(h *grip) { h.tx.DeleteAll() })
			t.w.OK()
		}
	case st.cmd.Name == "unwatch":
		t.w.OK() // EXEC gives up the watched keys in any case
	case t.s.hook != nil:
		if t.s.hook.Command(st.cmd, st.args, t.w) {
			t.end = true
		}
	default:
		t.w.Error(errNoHook)
	}
}

func (t *transaction) each(f func(*grip)) {
	for _, h := range t.grips {
		if h != nil {
			f(h)
		}
	}
}

// fenced is why a transaction that writes cannot, if the keyspace or a shard of it takes no writes.
func (t *transaction) fenced() string {
	if !t.writes {
		return ""
	}
	if t.s.ks.set.Load().readOnly {
		return errReadOnly
	}
	for _, h := range t.grips {
		if h != nil && h.group.Err != nil {
			return shardErrorText(h.id, h.group.Err)
		}
	}
	return ""
}

// spoiled is why the transaction cannot go on, and whether that is its size.
func (t *transaction) spoiled() (text string, large bool) {
	if len(t.w.Buf)-t.begun > maxReply {
		return errReplyLarge, false
	}
	for _, h := range t.grips {
		if h == nil {
			continue
		}
		if text, large := unfit(h.id, h.tx, h.group); text != "" {
			return text, large
		}
	}
	return "", false
}

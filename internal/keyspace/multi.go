package keyspace

import (
	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
)

// multi is a transaction in the making. Queued arguments are copied, since the connection's buffer moves on.
type multi struct {
	open    bool
	spoiled bool // a command was refused: EXEC will not happen
	queue   []queued
	ends    []int // where each argument ends in arena
	arena   []byte
	bytes   int
}

// queued is a command of a transaction; its arguments are multi.ends[from:to].
type queued struct {
	cmd      *command.Command
	from, to int
}

// maxQueue bounds the arguments of one transaction: more would not fit in a mutation anyway.
const maxQueue = maxMutation

func (m *multi) begin() { m.open = true }

// push queues a command, or returns why it cannot.
func (m *multi) push(c *command.Command, args [][]byte) string {
	size := 64
	for _, a := range args {
		size += len(a) + 8
	}
	if m.bytes+size > maxQueue {
		m.spoiled = true
		return errQueueLarge
	}
	m.bytes += size
	from := len(m.ends)
	for _, a := range args {
		m.arena = append(m.arena, a...)
		m.ends = append(m.ends, len(m.arena))
	}
	m.queue = append(m.queue, queued{c, from, len(m.ends)})
	return ""
}

// spoil notes a refused command; outside a transaction it does nothing.
func (m *multi) spoil() { m.spoiled = m.spoiled || m.open }

// steps resolves the queue.
func (m *multi) steps() []step {
	steps := make([]step, len(m.queue))
	args := make([][]byte, len(m.ends))
	at := 0
	for i, end := range m.ends {
		args[i], at = m.arena[at:end:end], end
	}
	for i, q := range m.queue {
		steps[i] = step{q.cmd, args[q.from:q.to:q.to]}
	}
	return steps
}

// end forgets the transaction. Large buffers are given back.
func (m *multi) end() {
	if cap(m.arena) > keepBuffer {
		*m = multi{}
		return
	}
	clear(m.queue)
	*m = multi{queue: m.queue[:0], ends: m.ends[:0], arena: m.arena[:0]}
}

// exec runs the queued commands as one: on one shard as one mutation; on several, with all of them held, as one mutation
// of each.
func (s *Session) exec(w *resp.Writer) (end bool) {
	if !s.multi.open {
		w.Error(errExecNoMulti)
		return false
	}
	defer func() {
		s.multi.end()
		s.unwatch()
	}()
	steps := s.multi.steps()
	if text := s.execRefusal(steps); text != "" {
		s.ks.Stats.Aborted.Add(1)
		w.Error(text)
		return false
	}
	if s.watch != nil && !sameShards(s.watchOn, s.on) {
		s.ks.Stats.Aborted.Add(1)
		w.NullArray()
		return false
	}
	t := &transaction{s: s, steps: steps, w: w, begun: len(w.Buf)}
	need := make([]bool, len(s.on.shards))
	keyed := true
	for _, st := range steps {
		keyed = keyed && st.cmd.Run != nil
		s.addShards(need, st.cmd, st.args)
	}
	for _, k := range s.watches {
		need[k.shard] = true
	}
	ids := idsOf(need)
	s.multi.open = false // what runs now is not queued
	s.inExec = true
	defer func() { s.inExec = false }()
	if len(ids) == 1 && keyed {
		t.onOne(ids[0])
	} else {
		t.onSeveral(ids)
	}
	return t.end
}

// execRefusal is why the transaction as a whole does not happen, or "".
func (s *Session) execRefusal(steps []step) string {
	if s.multi.spoiled {
		return errExecAbort
	}
	for _, st := range steps {
		if text := s.on.refusal(st.cmd); text != "" {
			return "EXECABORT Transaction discarded because of: " + text
		}
	}
	return ""
}

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
	case o.err != nil:
		t.fail(id, o.err)
	case h.wrote:
		s.noteWritten(id, o.next)
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

// txOf is the transaction of the shard that a key lives on.
func (t *transaction) txOf(key []byte) *engine.Tx { return t.grips[t.s.shardOf(key)].tx }

// fail replaces the reply by an error. On several shards, some may have taken their part.
func (t *transaction) fail(id int, err error) {
	t.w.Buf = t.w.Buf[:t.begun]
	t.w.Error(shardErrorText(id, err))
}

// run executes the steps. It returns false, with nothing written, if they are too large for the groups that they got.
func (t *transaction) run() bool {
	s := t.s
	if !t.single && s.watchedChanged(t.grips) {
		s.ks.Stats.Aborted.Add(1)
		t.w.NullArray()
		return true
	}
	if id, err := t.fenced(); err != nil {
		text := shardErrorText(id, err)
		if !t.single {
			text = "EXECABORT Transaction discarded because of: " + text
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

// fenced is why a transaction that writes cannot, if a shard of it takes no writes.
func (t *transaction) fenced() (int, error) {
	for _, st := range t.steps {
		if st.cmd.Flags&command.Write == 0 {
			continue
		}
		for _, h := range t.grips {
			if h != nil && h.group.Err != nil {
				return h.id, h.group.Err
			}
		}
	}
	return 0, nil
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

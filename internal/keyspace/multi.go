package keyspace

import (
	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/resp"
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
		if s.held {
			return
		}
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
	t := &transaction{s: s, steps: steps, w: w, begun: len(w.Buf), writes: writes(steps)}
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
	defer func() { s.inExec, s.multi.open = false, s.held }()
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
			return execAbort + text
		}
	}
	return ""
}

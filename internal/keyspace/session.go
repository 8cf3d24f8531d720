package keyspace

import (
	"sync/atomic"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// Sink takes a session's replies, in order.
type Sink interface {
	// Writer is where replies are appended. Its buffer may be exchanged for another by Flush.
	Writer() *resp.Writer
	// Flush sends what Writer holds and empties it. It may block as long as the client does not read.
	Flush() error
	// Send sends b behind what Writer holds, without copying it there. b is the caller's again on return.
	Send(b []byte) error
}

// Hook answers the commands that are not the keyspace's own: PING, CLIENT, INFO and so on.
type Hook interface {
	// Command appends the reply of one command to w. The commands before it have been executed, and their replies are
	// in w or were sent. It returns true if the connection is to end behind this reply.
	Command(c *command.Command, args [][]byte, w *resp.Writer) (end bool)
}

// Session is what one connection has with the keyspace: its protocol version, its transaction and watched keys, and what
// it has written. One goroutine at a time may use it.
type Session struct {
	ks   *Keyspace
	hook Hook
	hold func(released <-chan struct{}) error // waits at the gate; nil waits for as long as it is closed
	// Proto is the protocol version of replies, 2 or 3.
	Proto int

	reply   ReplyMode
	unmuted bool // the command at hand has ended the silence
	multi   multi
	watch   *watcher
	watches []watchedKey
	watchOn *set
	written []wire.Position // by shard: behind the session's last write
	inExec  bool
	held    bool // the command at hand writes, and has found the gate closed: nothing of it has happened

	round   round
	offered bool // the round has begun, and nobody has waited for its end
	on      *set // what the present pipeline runs against
	plan    []entry
	at      int      // first entry of plan that was not replied to
	lit     []byte   // replies that need no shard
	args    [][]byte // arguments of split commands
	shares  []*part  // of split commands
	byID    []*part  // the pipeline's parts by shard; nil where it has none
	parts   []*part  // the same, in the order of their first use
	reads   reads    // what is read beside the shards
}

// ReplyMode is what CLIENT REPLY sets.
type ReplyMode uint8

// The modes: every reply is sent; none is; the next one is not.
const (
	ReplyOn ReplyMode = iota
	ReplyOff
	ReplySkip
)

// round counts the parts that the shards still work at.
type round struct {
	left   atomic.Int32
	ready  chan struct{} // capacity 1: left has become 0
	waited atomic.Bool   // somebody waits for that, or is about to
}

func (r *round) arrive() {
	if r.left.Add(-1) == 0 {
		r.ready <- struct{}{}
		if r.waited.Load() {
			netpoll.Wake()
		}
	}
}

// entry is one command of the plan: where its reply comes from. Exactly one of part, split and the literal is used.
type entry struct {
	cmd      *command.Command
	part     *part // the one shard that answers
	args     [][]byte
	from, to int  // of shares if split, of lit otherwise
	split    bool // the replies of several shards are merged
	mute     bool // CLIENT REPLY: nothing is sent
}

// NewSession makes a session that speaks RESP2. hook may be nil: then only the keyspace's own commands exist.
func (k *Keyspace) NewSession(hook Hook) *Session {
	s := &Session{ks: k, hook: hook, Proto: 2, round: round{ready: make(chan struct{}, 1)}}
	if w, ok := hook.(Waiter); ok {
		s.hold = w.Hold
	}
	return s
}

// Close ends the session: its watched keys are given up. It does not wait.
func (s *Session) Close() { s.unwatch() }

// Reset is the keyspace's part of RESET: protocol 2, no transaction, no watched keys, replies on.
func (s *Session) Reset() {
	s.Proto, s.reply = 2, ReplyOn
	s.multi.end()
	s.unwatch()
}

// SetReply sets the reply mode, from the next command on; ReplyOn takes effect with the command that the hook is
// answering. To skip the next reply where none is sent says nothing.
func (s *Session) SetReply(m ReplyMode) {
	if m == ReplySkip && s.reply == ReplyOff {
		return
	}
	s.reply, s.unmuted = m, m == ReplyOn
}

// InMulti reports how many commands are queued, or -1 outside a transaction.
func (s *Session) InMulti() int {
	if !s.multi.open {
		return -1
	}
	return len(s.multi.queue)
}

// InExec reports whether the command that the hook is answering belongs to a transaction: it must not wait then.
func (s *Session) InExec() bool { return s.inExec }

// Written is, by shard, the position behind the session's last write there, in the generation that took it; zero where it
// wrote nothing, and short where it never did. It is valid until the next Exec.
func (s *Session) Written() []wire.Position { return s.written }

// Memory is what the session holds between pipelines, in bytes, without its watched keys.
func (s *Session) Memory() int { return s.multi.bytes + cap(s.lit) + 24*cap(s.args) }

// Exec executes the commands and gives their replies to the sink, in order. Commands on different shards run side by
// side; those on one shard run in order; a command that needs more than one shard's consent, or none, waits for those
// before it. It returns end when a hook ended the connection, which skips the commands behind; err is the sink's, and the
// rest of the commands may or may not have been executed then.
func (s *Session) Exec(cmds [][][]byte, sink Sink) (end bool, err error) {
	return s.Finish(cmds[s.Begin(cmds, sink):], sink)
}

// Begin is the part of Exec that waits for nothing and sends nothing. It returns how many of the commands, from the first
// on, are planned, or answered already. Finish must follow, with the others; between the two, who serves many sessions
// may call Offer and Settle.
func (s *Session) Begin(cmds [][][]byte, sink Sink) (n int) {
	s.on = s.ks.set.Load()
	s.ks.Stats.Commands.Add(uint64(len(cmds)))
	sink.Writer().Proto = s.Proto
	for n < len(cmds) && len(sink.Writer().Buf) < s.ks.opts.ReplyBytes {
		c, refused := command.Find(cmds[n])
		if !s.quick(c, refused, cmds[n], sink) {
			break
		}
		n++
	}
	s.endReads()
	return n
}

// Offer queues what Begin has planned at its shards. Once all sessions have offered, Settle of any one of them has all of
// it executed, as one group a shard.
func (s *Session) Offer() {
	if len(s.plan) > 0 {
		s.offer()
	}
}

// Syncs reports whether what Begin has planned waits for a disk before it is answered.
func (s *Session) Syncs() bool {
	for _, p := range s.parts {
		if p.on.Fsync() == shard.FsyncAlways {
			return true
		}
	}
	return false
}

// Execute has executed what Offer queued, with what others have offered at the same shards, if nobody is at them. It does not wait.
// With hold, which may be nil, it is the caller who announces that to replicas.
func (s *Session) Execute(hold *shard.Hold) {
	if s.offered && len(s.round.ready) == 0 {
		s.serve(false, hold)
	}
}

// Settle is Execute, and gives the replies to the sink. It neither waits nor has the sink send. It
// returns true when nothing is left: then Finish is not called. Otherwise it may be called again, or Finish.
func (s *Session) Settle(sink Sink) bool {
	if len(s.plan) > 0 {
		if s.offered {
			s.Execute(nil)
			select {
			case <-s.round.ready:
				s.executed()
			default:
				return false
			}
		}
		if s.collect(sink) != nil || s.at < len(s.plan) {
			return false
		}
		s.clear()
	}
	s.on = nil
	return true
}

// Finish executes the commands that Begin left, and what it has planned.
func (s *Session) Finish(cmds [][][]byte, sink Sink) (end bool, err error) {
	for _, args := range cmds {
		if len(sink.Writer().Buf) >= s.ks.opts.ReplyBytes {
			s.endReads()
			if err = sink.Flush(); err != nil {
				break
			}
		}
		c, refused := command.Find(args)
		if s.quick(c, refused, args, sink) {
			continue
		}
		s.endReads()
		if end, err = s.slow(c, refused, args, sink); end || err != nil {
			break
		}
	}
	s.endReads()
	if flushed := s.flush(sink); err == nil {
		err = flushed
	}
	s.on = nil
	return end, err
}

// quick takes a command that is executed beside its shard or planned, or that the hook answers at once, and reports whether it is one.
func (s *Session) quick(c *command.Command, refused string, args [][]byte, sink Sink) bool {
	if refused != "" || s.multi.open || s.reply != ReplyOn {
		return false
	}
	if c.Run == nil {
		return s.prompt(c, args, sink)
	}
	return s.readBeside(c, args, sink) || s.route(c, args)
}

// prompt has the hook answer a command that waits for nothing, where no reply is due before its own.
func (s *Session) prompt(c *command.Command, args [][]byte, sink Sink) bool {
	if !c.Prompt || s.hook == nil || len(s.plan) > 0 || s.refusal(c) != "" {
		return false
	}
	s.endReads()
	w := sink.Writer()
	begun := len(w.Buf)
	s.hook.Command(c, args, w)
	s.noteError(w, begun)
	return true
}

// slow takes a command that is not just routed: refused, queued, the keyspace's own, or the hook's.
func (s *Session) slow(c *command.Command, refused string, args [][]byte, sink Sink) (end bool, err error) {
	mute := s.reply != ReplyOn
	if s.reply == ReplySkip {
		s.reply = ReplyOn
	}
	for {
		if refused == "" {
			refused = s.refusal(c)
		}
		if refused != "" {
			s.ks.noteError([]byte(refused))
			s.multi.spoil()
			s.literal(refused, mute)
			return false, nil
		}
		if s.multi.open && !controls[c.Name] {
			s.literal(s.multi.push(c, args), mute)
			return false, nil
		}
		run := func(w *resp.Writer) { end = s.own(c, args, w, sink) }
		if first, _, _ := c.Keys(len(args)); c.Run != nil && first > 0 {
			if s.route(c, args) {
				s.plan[len(s.plan)-1].mute = mute
				return false, nil
			}
			// The command concerns several shards as one: everything before it must have happened.
			run = func(w *resp.Writer) { s.across(c, args, w) }
		}
		if err = s.barrier(sink, mute, run); err != nil || !s.held {
			return end, err
		}
		// It found the gate closed. Once it is let go, everything is looked at again: the role may have changed.
		s.held = false
		if err = s.await(sink); err != nil {
			return false, err
		}
		s.on = s.ks.set.Load()
	}
}

// refusal is why the command is neither executed nor queued now, or "".
func (s *Session) refusal(c *command.Command) string {
	switch {
	case s.multi.open && c.Flags&command.NoMulti != 0:
		return errNoMulti
	case c.Name == "exec":
		return "" // it says itself what it cannot do
	}
	return s.on.refusal(c)
}

// barrier executes what was planned, then runs f with the sink's writer.
func (s *Session) barrier(sink Sink, mute bool, f func(*resp.Writer)) error {
	if err := s.flush(sink); err != nil {
		return err
	}
	w := sink.Writer()
	if mute {
		w = &resp.Writer{Proto: s.Proto}
	}
	s.unmuted = false
	begun := len(w.Buf)
	f(w)
	s.noteError(w, begun)
	if mute && s.unmuted {
		sink.Writer().Buf = append(sink.Writer().Buf, w.Buf...)
	}
	s.on = s.ks.set.Load()
	sink.Writer().Proto = s.Proto
	if len(sink.Writer().Buf) >= s.ks.opts.ReplyBytes {
		return sink.Flush()
	}
	return nil
}

// noteError counts the reply that begins at begun if it is an error, and was not sent already.
func (s *Session) noteError(w *resp.Writer, begun int) {
	if begun < len(w.Buf) && w.Buf[begun] == '-' {
		s.ks.noteError(w.Buf[begun:])
	}
}

// literal plans a reply that is known: an error, or +QUEUED for "".
func (s *Session) literal(text string, mute bool) {
	from := len(s.lit)
	w := resp.Writer{Buf: s.lit, Proto: s.Proto}
	if text == "" {
		w.Simple("QUEUED")
	} else {
		w.Error(text)
	}
	s.lit = w.Buf
	s.plan = append(s.plan, entry{from: from, to: len(s.lit), mute: mute})
}

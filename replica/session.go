package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/internal/polite"
	"github.com/understudy-kv/understudy/wire"
)

const (
	tickEvery = 100 * time.Millisecond
	// lateTick is how late a tick has to be for this process, or its machine, not to have run meanwhile.
	lateTick   = time.Second
	byeTimeout = 500 * time.Millisecond // for the last words of a session
)

// session is the IO of one connection. It obeys the link; what it decides itself is only where bytes go.
//
// Three goroutines serve it: the link's own, which reads (read.go), the writer and the applier. Any of them may step the
// link and carry out what does not block; the reader alone carries out the rest.
type session struct {
	r      *runner
	ctx    context.Context // ends with the link
	conn   net.Conn
	lender netpoll.Lender // conn, if its reading can be lent
	inbox  *inbox
	outbox *outbox
	done   chan struct{} // closed when the session is to end
	once   sync.Once

	// writing is held by whoever takes from the outbox and writes to the connection: the writer, or the reader with an ack.
	writing   sync.Mutex
	ackSoon   *time.Timer // fires for the writer when ActionAckSoon is due
	unsentAck []byte      // guarded by writing: the rest of an ack of which a part was written

	heard  atomic.Int64 // when bytes arrived, on the node's clock
	paused atomic.Int32 // reasons for which the session is not reading
	dead   atomic.Bool  // the primary does not answer: it may not even hear that the connection is closed

	// What follows belongs to the reader, or to the poller while the reading is lent.
	failed  error // why reading ended while it was lent
	last    int   // bytes that the last read took
	frames  frameReader
	frame   wire.Frame // at hand
	at      span
	chunk   wire.Chunk
	staging *staging
	undoing *undoing
	calm    func() // ends the hurry of a full sync; nil without one
	pacing  bool   // full sync: reads are paced
	acts    []Action
	applied []Action // of what the reader applies itself
	ack     []byte

	announced string // where the HELLO said that this node serves replicas
}

// run serves the connection until it ends and everything that belongs to it has ended, and returns why.
func (r *runner) run(ctx context.Context, conn net.Conn) error {
	s := &session{r: r, ctx: ctx, conn: conn, outbox: newOutbox(), done: make(chan struct{}), ackSoon: time.NewTimer(time.Hour)}
	s.inbox = newInbox(r.f.opts.InboxBytes, s.pause)
	s.lender, _ = conn.(netpoll.Lender)
	s.frames = frameReader{src: reader{s, s.lender != nil}, waits: reader{s, false}, limit: wire.MaxHandshake, reserve: s.inbox.reserve, busy: s.inbox.queued}
	s.heard.Store(int64(r.f.now()))
	r.attach(s)
	// Before the writer, which hears of the end: a stop that came first would find a link without a session, and this one
	// would live on.
	first := s.greet()
	// A stop does not wait for a write that the primary does not take; see send.
	unhook := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Now().Add(byeTimeout)) })
	defer unhook()
	var group sync.WaitGroup
	// The writer owns the connection's write side and the ticks. It ends when the outbox is closed and closes the
	// connection then, which ends the reader. run waits for it.
	group.Go(func() { s.write() })
	// The applier owns the shard's ingest. It ends when the inbox is closed and empty, or with an error. run waits for
	// it, so that what has arrived is applied before the next HELLO tells a position (pitfall 1).
	group.Go(s.apply)
	err := s.read(first)
	s.step(Event{Kind: EventFailed, Err: err}, &s.acts)
	s.close("", "", false) // the link has done it already, unless read ended by itself during its end
	group.Wait()
	s.frames.close()
	if s.staging != nil {
		err = errors.Join(err, s.staging.close())
	}
	s.hurry(false)
	if s.undoing != nil {
		err = errors.Join(err, s.undoing.close())
	}
	r.attach(nil)
	return err
}

// step has the link decide, and carries out what any goroutine may. What is left is for the reader.
// The buffer is the calling goroutine's own.
func (s *session) step(ev Event, buf *[]Action) []Action { return s.stepFor(ev, buf, s.outbox.wake) }

// stepFor is step, with whom to tell of an ack: the writer's channel, or nil for a caller that sends it.
func (s *session) stepFor(ev Event, buf *[]Action, wake chan struct{}) []Action {
	*buf = s.r.step(ev, (*buf)[:0])
	rest := (*buf)[:0]
	for _, a := range *buf {
		switch a.Kind {
		case ActionAck:
			s.outbox.ack(a.Ack)
			signal(wake)
		case ActionAckSoon:
			s.ackSoon.Reset(a.Wait)
		case ActionKeepalive:
			s.outbox.push(wire.AppendControl(nil, wire.KindKeepalive, nil))
		case ActionClose:
			s.close(a.Code, a.Text, a.Drop)
		case ActionLog:
			s.r.log(a)
		default:
			rest = append(rest, a)
		}
	}
	return rest
}

// close begins the session's end: nothing more enters the inbox, the last words go out, the connection closes.
func (s *session) close(code wire.Code, text string, drop bool) {
	s.once.Do(func() {
		var bye []byte
		if code != "" {
			bye = wire.AppendRefusal(nil, wire.KindBye, wire.Refusal{Version: wire.Version, Code: code, Text: text})
		}
		if code == wire.CodeTimeout {
			s.dead.Store(true)
		}
		close(s.done)
		s.inbox.close(drop)
		s.outbox.close(bye)
		// Nothing that is being written, or will be, takes longer than this.
		_ = s.conn.SetWriteDeadline(time.Now().Add(byeTimeout))
	})
}

// ending reports whether the session is to end.
func (s *session) ending() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// pause counts the reasons for not reading. While there is one, silence proves nothing.
func (s *session) pause(on bool) {
	if on {
		s.paused.Add(1)
		return
	}
	s.heard.Store(int64(s.r.f.now()))
	s.paused.Add(-1)
}

// write is the writer.
func (s *session) write() {
	defer s.hangUp()
	defer s.ackSoon.Stop()
	ticker := polite.NewTicker(tickEvery)
	defer ticker.Stop()
	var buf []byte
	var acts []Action
	var lost time.Duration // since the last tick
	for stop := s.ctx.Done(); ; {
		waits, ticked := s.r.f.now(), false
		select {
		case <-s.outbox.wake:
		case <-s.ackSoon.C:
			s.step(Event{Kind: EventAckDue}, &acts)
		case <-ticker.C:
			ticked = true
			ticker.Next()
		case <-stop:
			stop = nil
			s.step(s.r.f.stopEvent(), &acts)
		}
		if late := s.r.f.now() - waits - tickEvery; late >= lateTick {
			lost += late // whatever woke it: the ticks are never later than that
		}
		if ticked {
			paused := s.paused.Load() > 0 // before heard: pause(false) writes them in the other order
			s.step(Event{Kind: EventTick, Paused: paused, Lost: lost, Heard: time.Duration(s.heard.Load()), Durable: s.r.durable()}, &acts)
			lost = 0
		}
		var last bool
		var err error
		s.writing.Lock()
		buf, last = s.outbox.take(append(buf[:0], s.unsentAck...))
		s.unsentAck = s.unsentAck[:0]
		if len(buf) > 0 {
			err = s.send(buf)
		}
		s.writing.Unlock()
		if last {
			return
		}
		if err != nil {
			s.step(s.unsent(err), &acts)
		}
	}
}

// unsent is the event of a write that failed.
func (s *session) unsent(err error) Event {
	if s.ctx.Err() != nil {
		return s.r.f.stopEvent() // which cut the write short
	}
	return Event{Kind: EventFailed, Err: err}
}

// send writes all of b. A slow link that moves is left alone, however long b is: half a megabyte of keys, for one (pitfalls 29, 31).
func (s *session) send(b []byte) error {
	stuck, err := netpoll.WriteAll(s.conn, b, s.r.f.opts.StuckWrite, byeTimeout, func() bool { return s.ending() || s.ctx.Err() != nil })
	if stuck > 0 {
		s.dead.Store(true)
		return fmt.Errorf("%w: nothing was taken for %s", ErrStuck, stuck)
	}
	return err
}

// hangUp closes the connection. To a primary that is dead, or deaf to this side, it is reset: the orderly end of a TCP stream
// waits behind all that was not acknowledged, which may be for ever, and a reset is heard at once by whoever hears anything.
func (s *session) hangUp() {
	if c, ok := s.conn.(interface{ SetLinger(sec int) error }); ok && s.dead.Load() {
		_ = c.SetLinger(0) // without it the other side takes longer
	}
	s.conn.Close()
}

// apply is the applier.
func (s *session) apply() {
	var acts []Action
	for {
		r, ok := s.inbox.take()
		if !ok {
			return
		}
		shard := s.r.shard()
		if !s.ingested(r, shard, shard.Ingest(r.frames(), r.first, r.next), &acts, s.outbox.wake) {
			return
		}
	}
}

// ingested is behind the ingest of a run. It returns false if that failed.
func (s *session) ingested(r run, shard Shard, err error, buf *[]Action, wake chan struct{}) bool {
	s.inbox.release(r)
	if err != nil {
		// Nothing behind it is applied, and nothing of it acked (pitfalls 21, 26).
		s.inbox.close(true)
		s.step(Event{Kind: EventFailed, Err: fmt.Errorf("%w: mutations [%d, %d): %w", ErrShard, r.first, r.next, err)}, buf)
		return false
	}
	s.stepFor(Event{Kind: EventApplied, Applied: r.next, Durable: shard.Durable()}, buf, wake)
	return true
}

// trier is a Shard that can tell whether it would wait.
type trier interface {
	// TryIngest is Ingest if the shard is idle. Otherwise it does nothing and returns false.
	TryIngest(frames []byte, first, next uint64) (bool, error)
}

// applySmall applies what the reader has queued if it is little and nobody is at the shard, and sends the ack. Otherwise the
// applier and the writer do. The reader calls it before it reads on.
func (s *session) applySmall(shard Shard) {
	t, ok := shard.(trier)
	if !ok {
		s.inbox.hand()
		return
	}
	r, ok := s.inbox.takeSmall()
	if !ok {
		return
	}
	s.pause(true) // it may take long where the disk does not keep up
	ok, err := t.TryIngest(r.frames(), r.first, r.next)
	s.pause(false)
	if !ok {
		s.inbox.giveBack(r)
		return
	}
	if !s.ingested(r, shard, err, &s.applied, nil) || !s.tryAck() {
		s.outbox.signal()
	}
}

// tryAck sends the ack that is due. It returns false if the writer has to.
func (s *session) tryAck() bool {
	// A kernel takes an ack at once; another connection may make its writer wait for the peer's reader.
	_, kernel := s.conn.(interface{ SetWriteBuffer(bytes int) error })
	if s.lender == nil && !kernel || !s.writing.TryLock() {
		return false
	}
	defer s.writing.Unlock()
	if len(s.unsentAck) > 0 {
		return false
	}
	if s.ack = s.outbox.takeAck(s.ack); len(s.ack) == 0 {
		return true
	}
	if s.lender == nil {
		if err := s.send(s.ack); err != nil {
			s.step(s.unsent(err), &s.applied)
		}
		return true
	}
	n, err := s.lender.TryWrite(s.ack)
	if n < len(s.ack) || err != nil {
		s.unsentAck = append(s.unsentAck, s.ack[n:]...)
		return false
	}
	return true
}

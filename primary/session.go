package primary

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/wire"
)

// session is one accepted replica on one shard.
type session struct {
	server *Server
	port   *port
	link   *link
	hello  wire.Hello
	*opening
	logger hclog.Logger

	ctx    context.Context
	cancel context.CancelCauseFunc // the first cause is the session's end

	// The listener hands FETCH frames to the feeder. A replica sends the next one when the last was answered; more
	// than fits is a protocol error, so the listener never waits for the feeder.
	fetches chan wire.Fetch

	misheard  error      // the listener's: what was wrong with an ack that was heard while its reading was lent
	rewinding *rewinding // of a session that begins with a rewind

	holds    atomic.Bool   // the snapshot, and with it the log from there on
	sent     atomic.Uint64 // offset behind what the feeder has begun to write
	progress progress

	more  chan struct{} // capacity 1: there is something for the feeder to send
	asked atomic.Uint64 // an ack of this is waited for
	hook  func()        // onPublished

	// What follows belongs to the feeder, and once it streams to whoever holds feeding: the feeder, unless it waits, or who publishes
	// (see onPublished).
	feeding sync.Mutex
	out     []byte // the frame being built
	due     time.Time
	hash    wire.Digest
	torn    bool // a frame was written in part: nothing else may follow it
	rest    struct {
		bytes []byte // of the last run, not written yet; torn is true meanwhile
		torn  bool   // it is still behind them
	}
	asking    uint64 // what was asked for
	streaming bool   // until then the feeder writes without feeding
	over      bool   // nothing is sent any more but the last words
}

func newSession(s *Server, p *port, l *link, h wire.Hello, o *opening, logger hclog.Logger) *session {
	c := &session{server: s, port: p, link: l, hello: h, opening: o, logger: logger, fetches: make(chan wire.Fetch, 4), more: make(chan struct{}, 1)}
	c.holds.Store(o.snapshot != nil)
	if o.verdict.Action == Rewind {
		c.rewinding = &rewinding{wants: make(chan [][]byte, 1)}
	}
	c.hook = c.onPublished
	c.ctx, c.cancel = context.WithCancelCause(s.ctx)
	return c
}

// run serves the session until it ends. It is the session's listener.
func (c *session) run() {
	s := c.server
	s.mu.Lock()
	s.mu.sessions[c.session] = c
	s.mu.Unlock()
	if !c.current() {
		c.end(errRole) // it changed between the decision and now, and Changed did not find the session
	}
	// The server's end must reach a feeder that is stuck in a write.
	stop := context.AfterFunc(c.ctx, c.link.end)
	fed := make(chan struct{})
	// The feeder is the only writer, with who publishes in its place (onPublished). It ends with the session's context, or with an error of its own; run waits for it.
	go func() {
		defer close(fed)
		c.end(c.feed())
		c.feeding.Lock()
		c.over = true
		c.feeding.Unlock()
		c.bye()
		if cause := context.Cause(c.ctx); errors.Is(cause, errSilent) || errors.Is(cause, errStuck) {
			c.link.reset()
		}
		c.link.conn.Close() // wakes the listener
	}()
	c.end(c.listen())
	<-fed
	stop()

	now := s.now()
	s.mu.Lock()
	delete(s.mu.sessions, c.session)
	s.mu.table.Detach(c.session, now)
	s.mu.Unlock()
	c.feeding.Lock() // who publishes may be at it
	c.closeReader()
	c.feeding.Unlock()
	c.letGo()
	cause := context.Cause(c.ctx)
	c.logger.Log(classify(cause).level, "session ended", "reason", cause, "sent", c.sent.Load())
}

// current reports whether the session may go on: the shard's lineage and the node's path are those that the replica was
// welcomed with, and the node's shards are of one history.
func (c *session) current() bool {
	o := &c.server.opts
	return c.onLineage() && slices.Equal(c.path, o.Path()) && !o.Mixed()
}

// onLineage reports whether the shard's lineage is the session's. Frames carry no generation, so nothing that was read
// from the log may be sent once this is false: a shard stores a new lineage before it publishes the first frame of it.
func (c *session) onLineage() bool {
	now := c.port.Lineage()
	if len(now) == len(c.lineage) && len(now) > 0 && &now[0] == &c.lineage[0] {
		return true
	}
	return now.Equal(c.lineage)
}

// end ends the session. The first reason is the one that the peer and the log are told.
func (c *session) end(err error) {
	c.cancel(err)
	c.link.end()
}

// listen reads what the replica says. There is no other reader (pitfall 35).
func (c *session) listen() error {
	for {
		f, err := c.link.next(sessionLimit)
		if err == wire.ErrShort {
			if err = c.link.listen(c.hear); err == nil {
				err = c.misheard
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		switch f.Kind {
		case wire.KindAck:
			a, err := wire.ParseAck(f.Payload)
			if err != nil {
				return err
			}
			if c.rewinding != nil {
				continue // a sign of life; what it still has is not this node's history
			}
			if err := c.ack(a); err != nil {
				return err
			}
		case wire.KindFetch:
			fetch, err := wire.ParseFetch(f.Payload)
			if err != nil {
				return err
			}
			if c.snapshot == nil {
				return protocol("a FETCH in a session without a full sync")
			}
			select {
			case c.fetches <- fetch:
			default:
				return protocol("a FETCH before the last ones were answered")
			}
		case wire.KindWantKeys:
			if err := c.rewinding.want(f.Payload); err != nil {
				return err
			}
		case wire.KindBye:
			r, err := wire.ParseRefusal(f.Kind, f.Payload)
			if err != nil {
				return err
			}
			return fmt.Errorf("%w: %s: %s", errLeft, r.Code, r.Text)
		default:
			if f.Kind < wire.KindOptional {
				return protocol("a %s frame from a replica", f.Kind)
			}
		}
	}
}

// ack takes an ack. The one that ends a full sync lets the snapshot go: what is needed from there on, the slot says.
func (c *session) ack(a wire.Ack) error {
	syncing, err := c.server.ack(c.session, c.sent.Load(), a)
	if err == nil && !syncing {
		c.letGo()
	}
	return err
}

// letGo releases the snapshot, if it is still held.
func (c *session) letGo() {
	if c.holds.Load() && c.holds.CompareAndSwap(true, false) {
		c.port.snapshots.release(c.snapshot)
	}
}

// hear is the listener while its reading is lent: it takes acks, and leaves everything else to it.
func (c *session) hear() bool {
	for read := false; ; {
		f, err := c.link.next(sessionLimit)
		if err == wire.ErrShort {
			if read && !c.link.lender.More() {
				return true
			}
			if err = c.link.hear(); err != nil {
				return err == netpoll.ErrWouldBlock
			}
			read = true
			continue
		}
		if err != nil {
			return false // the listener meets it again
		}
		if f.Kind != wire.KindAck || c.rewinding != nil {
			c.link.unread(f)
			return false
		}
		a, err := wire.ParseAck(f.Payload)
		if err == nil {
			err = c.ack(a)
		}
		if err != nil {
			c.misheard = err
			return false
		}
	}
}

// bye tells the replica why, if it can still be told.
func (c *session) bye() {
	cause := context.Cause(c.ctx)
	code := classify(cause).code
	if code == "" || c.torn {
		return
	}
	r := wire.Refusal{Version: wire.Version, Code: code, Text: cause.Error()}
	if err := c.link.write(wire.AppendRefusal(nil, wire.KindBye, r)); err != nil {
		c.logger.Debug("the reason could not be sent", "error", err)
	}
}

// write sends one whole frame. What is not sent whole leaves the stream torn.
func (c *session) write(frame []byte) error {
	c.torn = true
	if err := c.link.write(frame); err != nil {
		return err
	}
	c.torn = false
	return nil
}

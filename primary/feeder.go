package primary

import (
	"bytes"
	"context"
	"time"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/wire"
)

// maxRun is the most bytes of the stream that are taken from the log at a time.
const maxRun = 256 << 10

// feed is the feeder: it answers the HELLO, ships the snapshot if there is one, and streams.
func (c *session) feed() error {
	switch c.verdict.Action {
	case Rewind:
		return c.rewind()
	case FullSync:
		if err := c.fullSync(); err != nil {
			return err
		}
		var err error
		if c.reader, err = c.log.NewReader(c.snapshot.at.Offset); err != nil {
			return err
		}
		return c.stream()
	}
	at := c.verdict.Position
	c.sent.Store(at.Offset)
	c.logger.Info("replica resumes", "position", at, "behind", c.published-at.Offset)
	c.port.mu.Lock()
	c.port.mu.resumes++
	c.port.mu.Unlock()
	if err := c.write(wire.AppendWelcome(nil, c.welcome(at))); err != nil {
		return err
	}
	return c.stream()
}

func (c *session) welcome(at wire.Position) wire.Welcome {
	return wire.Welcome{
		Version: wire.Version, Node: c.server.opts.Node, Shard: uint32(c.port.ID()), Shards: uint32(len(c.server.ports)),
		Format: c.server.opts.Format, Position: at, Next: max(c.published, at.Offset), Lineage: c.lineage,
		Path: c.path, Announce: c.server.opts.Announce(),
	}
}

// stream sends the log from where the reader is, for as long as the session lasts. The first heartbeat leaves at once:
// its answer is the first ack.
func (c *session) stream() error {
	c.feeding.Lock()
	c.due, c.streaming = time.Time{}, true
	c.feeding.Unlock()
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		wait, err := c.advance()
		if err != nil {
			return err
		}
		if wait <= 0 {
			continue
		}
		due.Reset(wait)
		select {
		case <-c.more:
		case <-due.C:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
}

// advance sends a heartbeat if it is due, or else the next run. It returns how long the feeder is to wait, if there is nothing to
// send. Nothing can stand inside a frame (pitfall 29), whose bytes are a sign of life: so a heartbeat waits for its end.
func (c *session) advance() (wait time.Duration, err error) {
	c.feeding.Lock()
	defer c.feeding.Unlock()
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	if len(c.rest.bytes) > 0 {
		b := c.rest.bytes
		c.rest.bytes = nil
		if err := c.link.write(b); err != nil {
			return 0, err
		}
		c.torn = c.rest.torn
	}
	now := time.Now()
	if !c.torn && !now.Before(c.due) {
		return 0, c.beat()
	}
	if b := c.askFrame(); b != nil {
		return 0, c.write(b)
	}
	if c.reader.Arm(c.hook) {
		return c.due.Sub(now), nil
	}
	run, err := c.reader.Next(c.ctx, maxRun)
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	if err != nil {
		return 0, err
	}
	if !c.onLineage() {
		return 0, errRole
	}
	// Before the bytes leave: an ack of them may be back before write returns.
	c.sent.Store(run.Next)
	c.torn = true
	if err := c.link.write(run.Bytes); err != nil {
		return 0, err
	}
	c.torn, c.hash = !run.Boundary, run.Digest
	return 0, nil
}

// maxInline is how many bytes who publishes sends itself: more takes longer than to wake the feeder.
const maxInline = 32 << 10

// onPublished is called by who publishes what the feeder waits for, or announces that. It sends that at once if it is little and the
// connection takes it. Otherwise the feeder does.
func (c *session) onPublished() {
	if c.link.lender != nil && c.feeding.TryLock() {
		sent := c.trySend()
		c.feeding.Unlock()
		if sent {
			return
		}
	}
	c.wakeFeeder()
}

// wakeFeeder has the feeder look whether there is something to send.
func (c *session) wakeFeeder() {
	select {
	case c.more <- struct{}{}:
		netpoll.Wake()
	default:
	}
}

// ask has the replica ack as soon as it has applied everything before the offset.
func (c *session) ask(offset uint64) {
	c.log.Announce()
	for old := c.asked.Load(); old < offset; old = c.asked.Load() {
		if c.asked.CompareAndSwap(old, offset) {
			break
		}
	}
	if c.link.lender != nil && c.feeding.TryLock() {
		asked := c.tryAsk()
		c.feeding.Unlock()
		if asked {
			return
		}
	}
	c.wakeFeeder()
}

// tryAsk asks at once, if the connection takes it, and reports whether it did, or need not.
func (c *session) tryAsk() bool {
	if c.over || !c.streaming || c.ctx.Err() != nil {
		return false
	}
	b := c.askFrame()
	if b == nil {
		return c.asking >= c.asked.Load()
	}
	n, err := c.link.lender.TryWrite(b)
	if n < len(b) || err != nil {
		c.rest.bytes, c.rest.torn, c.torn = bytes.Clone(b[n:]), false, true
		return false
	}
	return true
}

// askFrame is the frame that asks for what is waited for, or nil if that was asked for already or nothing may be said now.
func (c *session) askFrame() []byte {
	asked := c.asked.Load()
	if c.torn || asked <= c.asking {
		return nil
	}
	c.asking = asked
	c.out = wire.AppendAsk(c.out[:0], asked)
	return c.out
}

func (c *session) trySend() bool {
	if c.over || len(c.rest.bytes) > 0 || c.ctx.Err() != nil || !c.reader.Small(maxInline) {
		return false
	}
	run, err := c.reader.Next(c.ctx, maxInline)
	if err != nil {
		return false // the feeder meets it again
	}
	if !c.onLineage() { // behind Next: who announces has not got the shard's turn
		c.end(errRole)
		return false
	}
	c.sent.Store(run.Next)
	n, err := c.link.lender.TryWrite(run.Bytes)
	c.hash, c.torn = run.Digest, !run.Boundary
	if n < len(run.Bytes) || err != nil {
		c.rest.bytes, c.rest.torn, c.torn = run.Bytes[n:], c.torn, true
		return false
	}
	return c.reader.Arm(c.hook)
}

// beat sends a heartbeat: where the primary is, and what this session was sent. It stands between two frames and takes
// no offset (pitfall 4), and speaks of the session's lineage only.
func (c *session) beat() error {
	c.due = time.Now().Add(HeartbeatInterval)
	sent := c.sent.Load()
	published := max(c.log.Published(), sent)
	if !c.onLineage() {
		return errRole // the offset may be one of a generation that the replica was not told of
	}
	h := wire.Heartbeat{
		Position: c.lineage.At(published), Clock: time.Now().UnixMicro(), Digest: c.hash, Sent: sent,
		Pending: uint64(c.log.BytesFrom(sent)),
	}
	c.out = wire.AppendHeartbeat(c.out[:0], h)
	return c.write(c.out)
}

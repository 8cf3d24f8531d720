package primary

import (
	"context"
	"errors"
	"time"

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
	for {
		if err := c.beat(); err != nil {
			return err
		}
		idle, stop := context.WithDeadline(c.ctx, c.due)
		err := c.pump(idle)
		stop()
		if err != nil {
			return err
		}
	}
}

// pump sends what the log has until the next heartbeat is due, which is when idle ends, and then to the end of the frame:
// nothing can stand inside one (pitfall 29), and its bytes are a sign of life.
func (c *session) pump(idle context.Context) error {
	for c.torn || time.Now().Before(c.due) {
		ctx := idle
		if c.torn {
			ctx = c.ctx
		}
		run, err := c.reader.Next(ctx, maxRun)
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if !c.onLineage() {
			return errRole
		}
		// Before the bytes leave: an ack of them may be back before write returns.
		c.sent.Store(run.Next)
		c.torn = true
		if err := c.link.write(run.Bytes); err != nil {
			return err
		}
		c.torn, c.hash = !run.Boundary, run.Digest
	}
	return nil
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

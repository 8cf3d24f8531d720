package primary

import (
	"context"
	"slices"
	"time"

	"github.com/understudy-kv/understudy/wire"
)

// valuesRun is the payload from which on a values frame is sent, in bytes; one value may be larger.
const valuesRun = 256 << 10

// rewinding is what a session of a rejoin by difference has besides.
type rewinding struct {
	// The listener's: what the replica asked for so far.
	keys  [][]byte
	bytes int
	whole bool
	// wants has the list once it is whole. capacity 1
	wants chan [][]byte
}

// want takes a WANT-KEYS. The listener calls it.
func (r *rewinding) want(payload []byte) error {
	if r == nil {
		return protocol("a WANT-KEYS in a session without a rewind")
	}
	w, err := wire.ParseWantKeys(payload)
	if err != nil {
		return err
	}
	r.bytes += len(payload)
	switch {
	case r.whole:
		return protocol("a WANT-KEYS behind the last one")
	case r.bytes > wire.MaxWantBytes || len(r.keys)+len(w.Keys) > wire.MaxWantKeys:
		return protocol("a WANT-KEYS of %d keys and %d bytes in all, at most %d and %d are in order", len(r.keys)+len(w.Keys), r.bytes, wire.MaxWantKeys, wire.MaxWantBytes)
	}
	all := slices.Concat(w.Keys...) // the payload belongs to the link
	for _, k := range w.Keys {
		r.keys = append(r.keys, all[:len(k):len(k)])
		all = all[len(k):]
	}
	if w.Last {
		r.whole = true
		r.wants <- r.keys
		r.keys = nil
	}
	return nil
}

// rewind tells the replica to go back to the fork, and what this node has under the keys that it has changed since. The
// slot keeps the log from the fork on.
func (c *session) rewind() error {
	fork := c.verdict.Position
	c.sent.Store(fork.Offset)
	c.logger.Warn("replica is to undo its surplus", "fork", fork, "why", c.verdict.Text)
	w := c.welcome(fork)
	w.Rewind = true
	if err := c.write(wire.AppendWelcome(nil, w)); err != nil {
		return err
	}
	c.due = time.Now().Add(HeartbeatInterval)
	keys, err := c.nextWants()
	if err != nil {
		return err
	}
	c.port.mu.Lock()
	c.port.mu.rewinds++
	c.port.mu.Unlock()
	at, err := c.sendValues(keys)
	if err != nil {
		return err
	}
	if !c.onLineage() || !c.lineage.Contains(at, max(c.log.Published(), at.Offset)) {
		return errRole // what was read may be of another history
	}
	s := c.server
	s.mu.Lock()
	err = s.mu.table.Settles(c.session, at.Offset)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := c.write(wire.AppendValuesEnd(c.out[:0], at)); err != nil {
		return err
	}
	c.logger.Info("replica has what it needs to undo its surplus", "keys", len(keys), "settles_at", at)
	// The replica ends the session.
	_, err = c.nextWants()
	return err
}

// nextWants waits for the list of keys, with heartbeats.
func (c *session) nextWants() ([][]byte, error) {
	for {
		timer := time.NewTimer(time.Until(c.due))
		select {
		case keys := <-c.rewinding.wants:
			timer.Stop()
			return keys, nil
		case <-c.ctx.Done():
			timer.Stop()
			return nil, context.Cause(c.ctx)
		case <-timer.C:
		}
		if err := c.beat(); err != nil {
			return nil, err
		}
	}
}

// sendValues streams what the shard has under the keys, a frame at a time, and returns the position of it.
func (c *session) sendValues(keys [][]byte) (wire.Position, error) {
	var b wire.Builder
	b.Reset()
	flush := func() error {
		if b.Len() == 0 {
			return nil
		}
		raw, err := b.FinishValues()
		if err != nil {
			return err
		}
		if err := c.write(raw); err != nil {
			return err
		}
		b.Reset()
		b.Shrink(4 * valuesRun)
		return nil
	}
	at, err := c.port.Shard.(valuer).Values(keys, func(key, value []byte, found bool) error {
		switch {
		case c.ctx.Err() != nil:
			return context.Cause(c.ctx)
		case !time.Now().Before(c.due):
			if err := c.beat(); err != nil {
				return err
			}
		}
		if b.Len()+len(key)+len(value) > valuesRun {
			if err := flush(); err != nil {
				return err
			}
		}
		if found {
			b.Put(key, value)
		} else {
			b.Delete(key)
		}
		return nil
	})
	if err != nil {
		return at, err
	}
	return at, flush()
}

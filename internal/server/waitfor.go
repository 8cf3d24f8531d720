package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// How often REPL.WAITFOR looks at the shards: soon at first, since a healthy replica is there within milliseconds, then
// rarer. To wait in the shards (shard.At) would end the pause that replctl verify asks for.
const (
	lookSoon   = time.Millisecond
	lookRarely = 25 * time.Millisecond
)

// replToken is REPL.TOKEN [OWN]: what this node has published, or only what this connection has written. Either way a node
// that has reached it has this connection's writes.
func replToken(c *call) {
	shards := c.s.ks.Shards()
	at := make([]wire.Position, len(shards))
	switch {
	case len(c.args) == 1:
		for i, s := range shards {
			at[i] = covered(s)
		}
	case len(c.args) == 2 && c.is(1, "own"):
		for i, p := range c.session.Written() {
			if i < len(at) {
				at[i] = p
			}
		}
	default:
		c.w.Error("ERR syntax error: REPL.TOKEN [OWN]")
		return
	}
	if len(at) == 0 {
		c.w.Error("LOADING Redis is loading the dataset in memory")
		return
	}
	c.w.Bulk(appendToken(nil, at))
}

// covered is what readers of a shard see, named by the generation that made it: the one that begins there may go again
// without a mutation, and nobody would ever reach a position of it.
func covered(on *shard.Shard) (at wire.Position) {
	// Lineage and offset belong together while the state machine cannot be switched.
	err := on.Use(func(shard.StateMachine) error {
		at = on.Lineage().Reached(on.Position().Offset)
		return nil
	})
	if err != nil {
		return on.Position() // it is being closed or replaced
	}
	return at
}

// replWaitFor is REPL.WAITFOR token timeout-ms: OK as soon as readers see everything that the token covers.
func replWaitFor(c *call) {
	want, err := parseToken(c.args[1])
	if err != nil {
		c.w.Error("ERR " + oneLine(err))
		return
	}
	limit, text := c.timeout(2)
	if text != "" {
		c.w.Error(text)
		return
	}
	worst, err := c.s.lookFor(want)
	if err == nil && worst >= 0 && !c.session.InExec() && c.sendFirst() {
		err = c.whileConnected(limit, func(ctx context.Context) error {
			for every := lookSoon; ; every = min(every*3/2, lookRarely) {
				t := time.NewTimer(every)
				select {
				case <-t.C:
				case <-ctx.Done():
					t.Stop()
					return nil
				}
				if worst, err = c.s.lookFor(want); err != nil || worst < 0 {
					return err
				}
			}
		})
	}
	switch {
	case err != nil:
		c.w.Error("ERR " + oneLine(err))
	case worst >= 0:
		c.w.Error("ERR " + c.s.behind(worst, want[worst], limit))
	default:
		c.w.OK()
	}
}

// lookFor returns the shard that has most to go to the token's positions, or -1 if none has any. An error means that
// waiting is of no use.
func (s *Server) lookFor(want []wire.Position) (worst int, err error) {
	shards := s.ks.Shards()
	if len(shards) == 0 {
		return 0, nil // still loading
	}
	if len(shards) != len(want) {
		return 0, fmt.Errorf("the token is of %d shards and this node has %d: take a token from this node's primary", len(want), len(shards))
	}
	worst = -1
	most := uint64(0)
	for i, p := range want {
		switch look(shards[i], p) {
		case lost:
			return i, fmt.Errorf("shard %d: the history of this node left generation %s before offset %d, so what the token covers is lost: read, and write again", i, p.Generation, p.Offset)
		case notYet:
			if left := p.Offset - min(shards[i].Position().Offset, p.Offset); worst < 0 || left > most {
				worst, most = i, left
			}
		}
	}
	return worst, nil
}

// look compares a position with what readers of a shard see.
func look(on *shard.Shard, want wire.Position) (v verdict) {
	// Lineage and offset belong together while the state machine cannot be switched.
	err := on.Use(func(shard.StateMachine) error {
		if v = judgeToken(want, on.Lineage(), on.Position().Offset); v == reached && !on.Settled() {
			v = notYet
		}
		return nil
	})
	if err != nil {
		return notYet // it is being closed or replaced
	}
	return v
}

// behind is what a client is told when the time is up.
func (s *Server) behind(id int, want wire.Position, limit time.Duration) string {
	var on *shard.Shard
	if shards := s.ks.Shards(); id < len(shards) {
		on = shards[id]
	}
	if on == nil {
		return fmt.Sprintf("this node has no data yet after %s: see INFO replication", limit)
	}
	return fmt.Sprintf("shard %d is at %s after %s, and the token is at %s: read from the primary, or wait longer", id, on.Position(), limit, want)
}

// whileConnected runs a wait with a context that ends with the time limit (0 is none), with the connection, and with the
// server.
func (c *conn) whileConnected(limit time.Duration, wait func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	c.waiting.Store(true)
	defer c.waiting.Store(false)
	watched := make(chan struct{})
	// Started here to end the wait when the client has gone or the server stops; it ends with the wait, and is waited for.
	go func() {
		defer close(watched)
		c.watch(ctx, cancel)
	}()
	err := wait(ctx)
	cancel()
	<-watched
	return err
}

// sendFirst sends the replies before the one that has to be waited for. It returns false if the connection has ended.
func (c *call) sendFirst() bool {
	if c.w == &c.conn.w && c.Flush() != nil {
		c.ending = true
	}
	return !c.ending
}

// errEnded is why a connection does not wait any longer for a write that is held.
var errEnded = errors.New("the client has gone, or the server stops")

// Hold waits while writes are held: see keyspace.Waiter.
func (c *conn) Hold(released <-chan struct{}) error {
	return c.whileConnected(0, func(ctx context.Context) error {
		select {
		case <-released:
			return nil
		case <-ctx.Done():
			return errEnded
		}
	})
}

package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// errKeyspace is what Propose returns where there are commands: bytes that are no keys of Pebble's layout would be in the
// log before the state machine refused them, and again at every start.
var errKeyspace = errors.New("node: Propose needs a state machine of the program's own (Options.StateMachine); this node has the built-in one, use Do")

// proposal is one mutation of an embedding program on its way through a shard.
type proposal struct {
	shard *shard.Shard
	build func(*wire.Builder) error
	ran   bool
	err   error
	done  chan error // capacity 1
	at    wire.Position
}

// Run builds the mutation in the shard's group.
func (p *proposal) Run(g *shard.Group) bool {
	b := &g.Builder
	mark, before, count := b.Mark(), b.Len(), b.Count()
	p.ran, p.err = true, g.Err
	if p.err == nil {
		p.err = p.build(b)
	}
	switch {
	case p.err != nil:
	case b.Count() != count:
		p.err = errors.New("node: a proposal is one mutation, which Propose ends; do not call End or Reset")
	case b.Len() >= wire.MaxPayload && before > 0:
		b.Rollback(mark) // it may fit into a frame of its own
		p.ran = false
		return false
	case b.Len() >= wire.MaxPayload:
		p.err = fmt.Errorf("%w: a mutation of %d bytes, a frame holds %d", wire.ErrTooLarge, b.Len(), wire.MaxPayload)
	}
	if p.err != nil {
		b.Rollback(mark)
		return true
	}
	if b.Since(mark) {
		b.End()
	}
	return true
}

// Committed answers.
func (p *proposal) Committed(next uint64, err error) {
	if !p.ran {
		return
	}
	if p.err == nil {
		p.err = err
	}
	p.at = p.shard.Lineage().At(next)
	p.done <- p.err
}

// Propose makes one mutation of a shard: build adds its puts and deletes, and must not end it. build runs on the shard's
// goroutine, so it must be quick, may read the state machine's data as it is, and may be called twice. When Propose
// returns nil the mutation is in the log (synced, under the policy always), applied, and on its way to replicas; the
// position lies behind it. It needs Options.StateMachine: with the built-in one, use Do.
//
// After an error of build, [wire.ErrTooLarge], [shard.ErrFollows] (the node is a replica) and [ErrClosed] nothing happened. After an error of the disk the mutation may
// have happened, or may happen still: when it was in the log and could not be synced, or be applied for want of room.
// When ctx ends first it may happen still, too.
func (n *Node) Propose(ctx context.Context, shardID int, build func(*wire.Builder) error) (wire.Position, error) {
	if n.keyspace != nil {
		return wire.Position{}, errKeyspace
	}
	shards := n.Shards()
	if len(shards) == 0 {
		return wire.Position{}, ErrClosed
	}
	if shardID < 0 || shardID >= len(shards) {
		return wire.Position{}, fmt.Errorf("node: shard %d does not exist: there are %d", shardID, len(shards))
	}
	p := &proposal{shard: shards[shardID], build: build, done: make(chan error, 1)}
	if err := p.shard.Submit(p); err != nil {
		return wire.Position{}, err
	}
	select {
	case err := <-p.done:
		if err != nil {
			return wire.Position{}, err
		}
		return p.at, nil
	case <-ctx.Done():
		return wire.Position{}, ctx.Err()
	}
}

package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/loadgen"
)

// probeRate is how many SETs a second look for stalls: one every millisecond, due whatever became of the one before.
const probeRate = 1000

// fullSync is S6: a replica that has nothing gets everything, while clients write. Redis is measured as it comes and tuned
// to its best.
func fullSync() scenario {
	return scenario{
		covers: []string{"S6"}, what: "full sync of 1 KiB values into an empty replica; longest stall of a SET meanwhile", peers: []string{memory, tuned},
		targets: []target{
			most("S6", "until the replica has everything", memory, 0.25), most("S6", "until the replica has everything", tuned, 1.0),
			most("S6", "longest stall of a SET", memory, 0.5), most("S6", "longest stall of a SET", tuned, 0.5),
		},
		run: func(ctx context.Context, t *turn) error {
			return t.pair(ctx, 0, 0, func(p *pair) error { return t.fullSync(ctx, p) })
		},
	}
}

func (t *turn) fullSync(ctx context.Context, p *pair) error {
	const value = 1024
	if err := t.fill(ctx, p, t.Keys, value); err != nil {
		return err
	}
	if err := p.calm(ctx); err != nil {
		return err
	}
	var before map[int]uint64
	if t.own() {
		var err error
		if before, err = offsets(p.primary.conn); err != nil {
			return err
		}
	}
	c := t.config(p)
	c.Value, c.Conns, c.Threads, c.Rate, c.Duration = value, 1, 1, probeRate, 0
	var took time.Duration
	var stall, p99 time.Duration
	err := beside(ctx, c, func(loading context.Context) error {
		began := time.Now()
		n, err := p.join(ctx, p.primary.base) // its connection outlives the load
		if err != nil {
			return err
		}
		if err := p.linked(loading); err != nil {
			return err
		}
		if t.own() {
			if err := durableFrom(loading, n, before); err != nil {
				return err
			}
		}
		took = time.Since(began)
		return nil
	}, func(r *loadgen.Result) { stall, p99 = r.Latency.Max(), r.Latency.Quantile(0.99) })
	if err != nil {
		return err
	}
	t.record("S6", "until the replica has everything", "s", took.Seconds())
	t.record("S6", "longest stall of a SET", "ms", stall.Seconds()*1e3)
	t.record("S6", "p99 of a SET", "ms", p99.Seconds()*1e3)
	return p.verify(ctx, t.Keys, value)
}

// own reports whether the turn's system is a build of ours.
func (t *turn) own() bool { return t.system.name() == ours || t.system.name() == against }

// offsets are a node's offsets by shard.
func offsets(c *client.Conn) (map[int]uint64, error) {
	n, err := c.Status()
	if err != nil {
		return nil, err
	}
	m := map[int]uint64{}
	for _, sh := range n.Shards {
		m[sh.Shard] = sh.Offset
	}
	return m, nil
}

// durableFrom waits until a replica has on disk what its primary had at these offsets: Redis's copy is in memory only.
func durableFrom(ctx context.Context, n *node, want map[int]uint64) error {
	return await(ctx, linkLimit, n.name+" has everything on disk", func() (bool, error) {
		s, err := n.conn.Status()
		if err != nil {
			return false, err
		}
		if len(s.Shards) != len(want) {
			return false, fmt.Errorf("%d shards, want %d", len(s.Shards), len(want))
		}
		for _, sh := range s.Shards {
			if sh.Link == nil || sh.Link.Durable < want[sh.Shard] {
				return false, nil
			}
		}
		return true, nil
	})
}

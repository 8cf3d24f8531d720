package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
)

// growth is S13, of ours alone: what an operation costs as the data set, the shards or the replicas become more.
func growth() scenario {
	const larger, copies = "CPU an op of the largest data set over the smallest's", "CPU of the primary for each further replica"
	return scenario{
		covers: []string{"S13"}, what: "growth of keys, shards and replicas",
		targets: []target{most("S13", larger, "", 2), most("S13", copies, "", 5)},
		run: func(ctx context.Context, t *turn) error {
			if t.system.name() != ours {
				return nil
			}
			var cost []float64
			for _, keys := range t.Grow {
				l, err := t.grown(ctx, fmt.Sprintf("%s keys", number(float64(keys))), keys, 0, 1, int64(slices.Max(t.Grow)))
				if err != nil {
					return err
				}
				cost = append(cost, l.micros(l.all))
			}
			if n := len(cost); n > 1 {
				t.record("S13", larger, "×", cost[n-1]/cost[0])
			}
			for _, shards := range t.GrowShards {
				if _, err := t.grown(ctx, fmt.Sprintf("%d shards", shards), t.Keys, shards, 1, 0); err != nil {
					return err
				}
			}
			cost = nil
			for _, n := range t.GrowCopies {
				l, err := t.grown(ctx, fmt.Sprintf("%d replicas", n), t.Keys, 0, n, copiesWrites*int64(t.Keys))
				if err != nil {
					return err
				}
				cost = append(cost, l.micros(l.all))
			}
			if n := len(cost); n > 1 {
				more := t.GrowCopies[n-1] - t.GrowCopies[0]
				t.record("S13", copies, "%", 100*(cost[n-1]/cost[0]-1)/float64(more))
			}
			return nil
		},
	}
}

// copiesWrites is how often each key is written to, on average, for each number of replicas.
const copiesWrites = 8

// grown measures SETs of 64 bytes at the longest pipeline on one size of everything, so many requests or, if that is 0, as long as
// loads last. Data sets of different sizes are written to as often as the largest one has keys: a short load would measure
// what happens to be due behind the fill, a flush and the compaction of it all, or nothing of that. So it would with numbers of replicas
// that share the machine: eight of them leave time for a fifth of the requests, with as many flushes.
func (t *turn) grown(ctx context.Context, name string, keys uint64, shards, replicas int, requests int64) (l *loaded, err error) {
	one := *t
	one.dir = filepath.Join(t.dir, name)
	if err := mkdir(one.dir); err != nil {
		return nil, err
	}
	err = one.pair(ctx, replicas, shards, func(p *pair) error {
		const value = 64
		if err := t.fill(ctx, p, keys, value); err != nil {
			return err
		}
		c := t.config(p)
		c.Keys, c.Value, c.Pipeline = keys, value, t.Pipelines[0]
		if requests == 0 {
			if l, err = t.load(ctx, p, c); err != nil {
				return err
			}
		} else {
			c.Requests, c.Duration = requests, 0
			if l, err = t.loadToRest(ctx, p, c); err != nil {
				return err
			}
			t.record("S13", name+": CPU of the primary, with what it leaves to do", "µs/op", l.micros(l.all))
		}
		t.record("S13", name+": rate", "ops/s", l.rate())
		t.record("S13", name+": CPU of the primary", "µs/op", l.micros(l.cpu[0]))
		t.record("S13", name+": CPU of a replica", "µs/op", l.micros(l.replicaCPU()))
		return p.verify(ctx, keys, value)
	})
	return l, err
}

package bench

import (
	"context"
	"fmt"

	"github.com/understudy-kv/understudy/internal/loadgen"
)

// gets is S8: GETs of 64 bytes, uniform and by Zipf's law; and, of ours alone, from a data set larger than --memory.
func gets() scenario {
	s := scenario{covers: []string{"S8"}, what: "GET, 64 B, uniform and Zipf, and from a data set larger than --memory", peers: []string{memory}}
	for _, order := range []string{"uniform", "Zipf"} {
		s.targets = append(s.targets, least("S8", order+", pipeline 16", memory, 1.2), least("S8", order+", pipeline 1", memory, 1.0))
	}
	s.run = func(ctx context.Context, t *turn) error {
		const value = 64
		err := t.pair(ctx, 1, 0, func(p *pair) error {
			if err := t.fill(ctx, p, t.Keys, value); err != nil {
				return err
			}
			if err := p.verify(ctx, t.Keys, value); err != nil {
				return err
			}
			return t.gets(ctx, p, t.Keys, value, "")
		})
		if err != nil || t.system.name() != ours {
			return err
		}
		return t.largeGets(ctx)
	}
	return s
}

// getPipelines are the pipelines among those asked for that are shorter than the longest: S8 names 16 and 1.
func (o *Options) getPipelines() []int {
	if len(o.Pipelines) > 1 {
		return o.Pipelines[1:]
	}
	return o.Pipelines
}

func (t *turn) gets(ctx context.Context, p *pair, keys uint64, value int, of string) error {
	for _, order := range []struct {
		name  string
		order loadgen.Order
	}{{"uniform", loadgen.Uniform}, {"Zipf", loadgen.Zipf}} {
		if order.order == loadgen.Zipf && t.Generator == genRedis {
			continue // it draws uniformly only
		}
		for _, pipeline := range t.getPipelines() {
			c := t.config(p)
			c.Order, c.Pipeline, c.Gets, c.Keys, c.Value = order.order, pipeline, 100, keys, value
			l, err := t.load(ctx, p, c)
			if err != nil {
				return err
			}
			if l.misses > 0 {
				return fmt.Errorf("%d of %d GETs found nothing: the run counts for nothing", l.misses, l.requests)
			}
			t.record("S8", order.name+", "+pipelineName(pipeline)+of, "ops/s", l.rate())
		}
	}
	return nil
}

// largeGets reads from a data set that is four times as large as --memory, by values of 1 KiB; --memory is what it may
// be at least, so that loading takes seconds.
func (t *turn) largeGets(ctx context.Context) error {
	const allowed, value = 32 << 20, 1024
	keys := min(4*uint64(allowed)/value, t.Keys)
	small := *t
	u := *t.system.(*understudy)
	u.memory = allowed
	small.system, small.dir = &u, t.dir+"/large"
	if err := mkdir(small.dir); err != nil {
		return err
	}
	return small.pair(ctx, 1, 0, func(p *pair) error {
		if err := t.fill(ctx, p, keys, value); err != nil {
			return err
		}
		if err := p.verify(ctx, keys, value); err != nil {
			return err
		}
		return t.gets(ctx, p, keys, value, ", 1 KiB, 4 × --memory")
	})
}

package bench

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/understudy-kv/understudy/internal/loadgen"
)

// Of 100 requests of S9 these are GETs, and it runs at this share of the peak rate.
const (
	mixedGets  = 80
	mixedShare = 0.6
)

// mixed is S9: GETs and SETs by turns while replicating, at 60 % of Redis's peak rate, each request at its time.
func mixed() scenario {
	return scenario{
		covers: []string{"S9"}, what: "mixed 80/20 GET/SET at 60 % of Redis's peak rate, latency from when a request was due", peers: []string{memory},
		targets: []target{most("S9", "p99", memory, 1.0)},
		run: func(ctx context.Context, t *turn) error {
			peak, err := t.shared.peak(ctx, t)
			if err != nil {
				return fmt.Errorf("peak rate: %w", err)
			}
			return t.pair(ctx, 1, 0, func(p *pair) error {
				c, err := t.mixed(ctx, p)
				if err != nil {
					return err
				}
				c.Rate = mixedShare * peak
				l, err := t.load(ctx, p, c)
				if err != nil {
					return err
				}
				if l.misses > 0 {
					return fmt.Errorf("%d GETs found nothing: the run counts for nothing", l.misses)
				}
				t.record("S9", "rate", "ops/s", c.Rate)
				t.record("S9", "p50", "µs", micros(l.latency.Quantile(0.50)))
				t.record("S9", "p99", "µs", micros(l.latency.Quantile(0.99)))
				t.record("S9", "longest", "ms", micros(l.latency.Max())/1e3)
				t.record("S9", "CPU of the primary", "µs/op", l.micros(l.cpu[0]))
				t.record("S9", "CPU of the replica", "µs/op", l.micros(l.replicaCPU()))
				t.record("S9", "CPU of the load generator", "µs/op", l.micros(l.genCPU))
				return p.verify(ctx, t.Keys, c.Value)
			})
		},
	}
}

// mixed loads a pair with every key and gives the load of S9, without its rate.
func (t *turn) mixed(ctx context.Context, p *pair) (loadgen.Config, error) {
	c := t.config(p)
	c.Value, c.Gets = 64, mixedGets
	return c, t.fill(ctx, p, t.Keys, c.Value)
}

// shared is what turns of different systems have in common.
type shared struct {
	peakRate float64
}

// peak is Redis's peak rate in S9, with one request under way on each connection, or our own where there is no peer. It is
// measured once, before the first turn that needs it.
func (s *shared) peak(ctx context.Context, t *turn) (float64, error) {
	if s.peakRate > 0 {
		return s.peakRate, nil
	}
	first := *t
	if t.Peer != "" {
		first.system = redisMemory(t.Peer)
	}
	first.dir = filepath.Join(t.dir, "peak")
	if err := mkdir(first.dir); err != nil {
		return 0, err
	}
	err := first.pair(ctx, 1, 0, func(p *pair) error {
		c, err := first.mixed(ctx, p)
		if err != nil {
			return err
		}
		l, err := first.load(ctx, p, c)
		if err == nil {
			s.peakRate = l.rate()
		}
		return err
	})
	return s.peakRate, err
}

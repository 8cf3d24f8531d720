package bench

import (
	"context"
	"errors"
	"time"

	"github.com/understudy-kv/understudy/internal/loadgen"
)

// The paced load of S5, and the pause between two of its samples.
const (
	lagRate  = 20_000
	lagPause = time.Millisecond
)

// visibility is S5: from the reply to a SET at the primary to a GET at the replica that finds it, idle, under a paced load, and, without a target,
// beside as many SETs without a pipeline as there can be.
func visibility() scenario {
	s := scenario{covers: []string{"S5"}, what: "visibility lag, idle, at 20k SET/s and at full speed", peers: []string{memory}}
	for _, when := range []string{"idle", "at 20k SET/s"} {
		s.targets = append(s.targets, most("S5", when+", p50", memory, 1.2), most("S5", when+", p99", memory, 1.0))
	}
	s.run = func(ctx context.Context, t *turn) error {
		return t.pair(ctx, 1, 0, func(p *pair) error {
			const value = 64
			if err := t.fill(ctx, p, t.Keys, value); err != nil {
				return err
			}
			if err := p.calm(ctx); err != nil {
				return err
			}
			h, err := loadgen.Lag(ctx, p.primary.addr, p.replicas[0].addr, lagPause, t.Duration)
			if err != nil {
				return err
			}
			t.lag("idle", h)
			for _, load := range []struct {
				when string
				rate float64
			}{{"at 20k SET/s", lagRate}, {"at full speed", 0}} {
				c := t.config(p)
				c.Rate, c.Value, c.Duration = load.rate, value, 0
				err = beside(ctx, c, func(ctx context.Context) error {
					h, err = loadgen.Lag(ctx, p.primary.addr, p.replicas[0].addr, lagPause, t.Duration)
					return err
				}, nil)
				if err != nil {
					return err
				}
				t.lag(load.when, h)
			}
			if _, err := p.primary.number("DEL", loadgen.LagKey); err != nil {
				return err
			}
			return p.verify(ctx, t.Keys, value)
		})
	}
	return s
}

func (t *turn) lag(when string, h *loadgen.Histogram) {
	t.record("S5", when+", p50", "µs", micros(h.Quantile(0.50)))
	t.record("S5", when+", p99", "µs", micros(h.Quantile(0.99)))
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// beside runs f while a load runs, and gives what the load did to took, which may be nil.
func beside(ctx context.Context, c loadgen.Config, f func(ctx context.Context) error, took func(*loadgen.Result)) error {
	stop := make(chan struct{})
	c.Stop = stop
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	// beside starts the load beside itself. It ends with stop or ctx, and beside waits for it.
	go func() {
		r, err := loadgen.Run(ctx, c)
		if err == nil && took != nil {
			took(r)
		}
		if err != nil {
			cancel(err) // without its load, f measures nothing
		}
		ended <- err
	}()
	err := f(ctx)
	close(stop)
	return errors.Join(err, <-ended)
}

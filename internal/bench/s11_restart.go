package bench

import (
	"context"
	"time"
)

// restart is S11: a primary is killed and started again, with its data and a backlog that is full.
func restart() scenario {
	return scenario{
		covers: []string{"S11"}, what: "restart after kill -9 with 1 KiB values, until ready", peers: []string{durable},
		targets: []target{most("S11", "until ready", durable, 0.5)},
		run: func(ctx context.Context, t *turn) error {
			return t.pair(ctx, 0, 0, func(p *pair) error {
				const value = 1024
				if err := t.fill(ctx, p, t.Keys, value); err != nil {
					return err
				}
				if err := p.calm(ctx); err != nil {
					return err
				}
				if err := p.primary.kill(); err != nil {
					return err
				}
				began := time.Now()
				if err := p.primary.start(ctx); err != nil {
					return err
				}
				t.record("S11", "until ready", "s", time.Since(began).Seconds())
				return p.verify(ctx, t.Keys, value)
			})
		},
	}
}

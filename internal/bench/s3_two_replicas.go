package bench

import "context"

// twoReplicas is S3: S1 at its longest pipeline with two replicas.
func twoReplicas() scenario {
	return scenario{
		covers: []string{"S3"}, what: "replicated SET, 64 B, two replicas", peers: []string{memory},
		targets: []target{least("S3", pipelineName(64), memory, 1.4)},
		run: func(ctx context.Context, t *turn) error {
			return t.pair(ctx, 2, 0, func(p *pair) error {
				const value = 64
				if err := t.fill(ctx, p, t.Keys, value); err != nil {
					return err
				}
				c := t.config(p)
				c.Pipeline, c.Value = t.Pipelines[0], value
				l, err := t.load(ctx, p, c)
				if err != nil {
					return err
				}
				t.record("S3", pipelineName(c.Pipeline), "ops/s", l.rate())
				t.record("S3", "CPU of the primary", "µs/op", l.micros(l.cpu[0]))
				t.record("S3", "CPU of a replica", "µs/op", l.micros(l.replicaCPU()))
				return p.verify(ctx, t.Keys, value)
			})
		},
	}
}

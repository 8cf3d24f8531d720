package bench

import "context"

// S14's load: SETs at a pace that leaves the processors some room, of values that are small enough to go through memtables, to twice the
// keys of other scenarios; and what --memory is in it, so that a memtable is full every third second.
const (
	tailRate   = 30_000
	tailValue  = 400
	tailMemory = 128 << 20
	tailFor    = 5 // times the duration of other loads
)

// background is S14: the latency of SETs at a pace while flushes and compactions run beside them. The issue behind S1 to S13 asks for
// background work that p99 does not suffer from, and has no figure for it; Redis has no such work, but with an append-only file.
func background() scenario {
	return scenario{
		covers: []string{"S14"}, what: "SET at 30k a second of 400 B, latency from when a request was due, while flushes and compactions run", peers: []string{memory, durable},
		run: func(ctx context.Context, t *turn) error {
			small := *t
			if u, ok := t.system.(*understudy); ok {
				v := *u
				v.memory = tailMemory
				small.system = &v
			}
			return small.pair(ctx, 1, 0, func(p *pair) error {
				c := t.config(p)
				c.Keys, c.Value, c.Rate, c.Duration = 2*t.Keys, tailValue, tailRate, tailFor*t.Duration
				if err := t.fill(ctx, p, c.Keys, c.Value); err != nil {
					return err
				}
				l, err := t.load(ctx, p, c)
				if err != nil {
					return err
				}
				t.record("S14", "p50", "µs", micros(l.latency.Quantile(0.50)))
				t.record("S14", "p99", "µs", micros(l.latency.Quantile(0.99)))
				t.record("S14", "p99.9", "µs", micros(l.latency.Quantile(0.999)))
				t.record("S14", "longest", "ms", micros(l.latency.Max())/1e3)
				t.record("S14", "CPU of the primary", "µs/op", l.micros(l.cpu[0]))
				t.record("S14", "CPU of the replica", "µs/op", l.micros(l.replicaCPU()))
				return p.verify(ctx, c.Keys, c.Value)
			})
		},
	}
}

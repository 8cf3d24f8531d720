package bench

import "context"

// sustainedSet is S2: SETs of 1 KiB for a minute, with one replica, and what that writes to disk.
func sustainedSet() scenario {
	const written = "bytes written to disk a byte of value"
	s := scenario{
		covers: []string{"S2"}, what: "replicated SET, 1 KiB, one replica, sustained; bytes written to disk", peers: []string{durable},
		targets: []target{most("S2", written, "", 3)},
	}
	for i, pipeline := range []int{64, 16, 1} {
		s.targets = append(s.targets, least("S2", pipelineName(pipeline), durable, []float64{1.5, 1.5, 1.3}[i]))
	}
	s.run = func(ctx context.Context, t *turn) error {
		return t.pair(ctx, 1, 0, func(p *pair) error {
			const value = 1024
			if err := t.fill(ctx, p, t.Keys, value); err != nil {
				return err
			}
			var disk, values int64
			for _, pipeline := range t.Pipelines {
				c := t.config(p)
				c.Pipeline, c.Value, c.Duration, c.Latency = pipeline, value, t.Sustained, true
				before, err := p.written()
				if err != nil {
					return err
				}
				l, err := t.load(ctx, p, c)
				if err != nil {
					return err
				}
				after, err := p.written()
				if err != nil {
					return err
				}
				disk += after - before
				values += l.requests * value
				t.record("S2", pipelineName(pipeline), "ops/s", l.rate())
				if l.latency.Count() > 0 {
					t.record("S2", "longest SET, "+pipelineName(pipeline), "ms", micros(l.latency.Max())/1e3)
				}
				t.record("S2", "CPU of the primary, "+pipelineName(pipeline), "µs/op", l.micros(l.cpu[0]))
				t.record("S2", "CPU of the replica, "+pipelineName(pipeline), "µs/op", l.micros(l.replicaCPU()))
			}
			t.record("S2", written, "×", float64(disk)/float64(values))
			return p.verify(ctx, t.Keys, value)
		})
	}
	return s
}

// written is what all processes caused to be written to disk since they started.
func (p *pair) written() (sum int64, err error) {
	for _, n := range p.nodes() {
		w, err := n.proc.written()
		if err != nil {
			return 0, err
		}
		sum += w
	}
	return sum, nil
}

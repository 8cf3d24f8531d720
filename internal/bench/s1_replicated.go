package bench

import (
	"context"
	"fmt"
	"time"
)

// replicatedSet is S1, and S4 and S10, which are read off its longest pipeline: SETs of 64 bytes over random keys, with
// one replica.
func replicatedSet() scenario {
	s := scenario{
		covers: []string{"S1", "S4", "S10"}, what: "replicated SET, 64 B, one replica; its CPU an op; its memory", peers: []string{memory, durable},
		targets: []target{
			most("S4", "CPU of the primary", memory, 0.8), most("S4", "CPU of the replica", memory, 0.6),
			most("S10", "memory of the primary", memory, 2), most("S10", "of what --memory and --backlog-memory allow", "", 1),
		},
	}
	for i, pipeline := range []int{64, 16, 1} {
		s.targets = append(s.targets,
			least("S1", pipelineName(pipeline), durable, []float64{2.2, 1.9, 1.3}[i]), least("S1", pipelineName(pipeline), memory, []float64{1.3, 1.2, 1.0}[i]))
	}
	s.run = func(ctx context.Context, t *turn) error {
		return t.pair(ctx, 1, 0, func(p *pair) error { return t.replicatedSet(ctx, p) })
	}
	return s
}

func pipelineName(p int) string { return fmt.Sprintf("pipeline %d", p) }

func (t *turn) replicatedSet(ctx context.Context, p *pair) error {
	const value = 64
	if err := t.fill(ctx, p, t.Keys, value); err != nil {
		return err
	}
	for i, pipeline := range t.Pipelines {
		if i > 0 && !t.wants("S1") {
			break
		}
		c := t.config(p)
		c.Pipeline, c.Value = pipeline, value
		var peak int64
		watched := watch(p.primary.proc, &peak)
		l, err := t.load(ctx, p, c)
		if err := watched(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		t.record("S1", pipelineName(pipeline), "ops/s", l.rate())
		if i == 0 {
			t.record("S4", "CPU of the primary", "µs/op", l.micros(l.cpu[0]))
			t.record("S4", "CPU of the replica", "µs/op", l.micros(l.replicaCPU()))
			t.record("S4", "CPU of the load generator", "µs/op", l.micros(l.genCPU))
			t.record("S10", "memory of the primary", "MiB", float64(peak)/(1<<20))
			if allowed := t.allowed(); allowed > 0 {
				t.record("S10", "of what --memory and --backlog-memory allow", "×", float64(peak)/float64(allowed))
			}
		}
	}
	return p.verify(ctx, t.Keys, value)
}

// allowed is what one of our processes may hold by its settings, or 0 for another system's.
func (t *turn) allowed() int64 {
	if !t.own() {
		return 0
	}
	memory, backlog := int64(512<<20), int64(16<<20) // the programs' defaults
	if t.Memory > 0 {
		memory = int64(t.Memory)
	}
	return memory + backlog*int64(defaultShards())
}

// watch looks at a process's memory ten times a second until it is told to stop, and keeps the most that it saw in peak.
func watch(p *process, peak *int64) (stop func() error) {
	done, ended := make(chan struct{}), make(chan error)
	// watch starts this goroutine. It owns peak until it ends, with stop, which waits for it.
	go func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			rss, err := p.rssAnon()
			if err != nil {
				<-done
				ended <- err
				return
			}
			*peak = max(*peak, rss)
			select {
			case <-ticker.C:
			case <-done:
				ended <- nil
				return
			}
		}
	}()
	return func() error {
		close(done)
		return <-ended
	}
}

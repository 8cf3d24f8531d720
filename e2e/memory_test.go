package e2e

import (
	"testing"
	"time"
)

// TestPrimaryMemory: a primary with one stopped replica under full load stays within backlog-memory × shards + memory
// and a fifth, measured from the process. Anonymous memory is measured: pages of files belong to the kernel's cache. 20 s in
// the short suite, 60 s with -long. It runs alone, since it loads both cores.
func TestPrimaryMemory(t *testing.T) {
	duration := 15 * time.Second
	if *long {
		duration = 60 * time.Second
	}
	const shards, backlog, memory = 2, 16 * mib, 64 * mib
	p := newPair(t, setup{shards: shards, primary: []string{"--backlog-memory", "16MiB", "--memory", "64MiB", "--backlog-disk", "512MiB"}})
	p.replica.pause()
	l := p.primary.startLoad(loadOptions{clients: 8, pipeline: 64, keys: 4096, value: 512})
	var peak int64
	throughout(t, duration, "the primary stays within its memory", func() error {
		rss, err := p.primary.proc.rss()
		peak = max(peak, rss)
		return err
	})
	l.stop()
	bound := int64(shards*backlog+memory+footprint) * 12 / 10
	t.Logf("%d writes in %s; anonymous memory at most %.1f MiB, allowed are %.1f", l.acked.Load(), duration, float64(peak)/mib, float64(bound)/mib)
	if peak > bound {
		t.Errorf("%d bytes of anonymous memory, at most %d are allowed", peak, bound)
	}
	if l.errors.Load() > 0 {
		t.Errorf("%d writes failed", l.errors.Load())
	}
	p.replica.cont()
	p.waitStreaming(40 * time.Second)
	p.waitCaughtUp(60 * time.Second)
	l.check(p.replica)
}

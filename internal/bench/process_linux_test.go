package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestProcessFigures: a child's CPU, memory and writes are read while it lives, and its end is told.
func TestProcessFigures(t *testing.T) {
	p, err := launch(t.TempDir(), "child", "/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ready now; exec sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill() //nolint:errcheck // killed below
	if err := p.awaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if cpu, err := p.cpu(); err != nil || cpu < time.Millisecond || cpu > time.Minute {
		t.Errorf("CPU %s (%v), want some", cpu, err)
	}
	if rss, err := p.rssAnon(); err != nil || rss < 4096 || rss > 1<<30 {
		t.Errorf("RssAnon %d (%v)", rss, err)
	}
	if _, err := p.written(); err != nil {
		t.Error(err)
	}
	if err := p.alive(); err != nil {
		t.Error(err)
	}
	if err := p.kill(); err != nil {
		t.Error(err)
	}
	if err := p.alive(); err == nil || !strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), p.log) {
		t.Errorf("%v, want one that tells how it ended and where its log is", err)
	}
	if err := p.terminate(); err != nil {
		t.Errorf("ending what has ended: %v", err)
	}
}

func TestAProcessThatEndsBeforeItIsReady(t *testing.T) {
	p, err := launch(t.TempDir(), "child", "/bin/sh", "-c", "exit 3")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.awaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v, want its exit status", err)
	}
}

// TestAwait: it ends with the condition, its error, the limit or the context, whichever comes first.
func TestAwait(t *testing.T) {
	calls := 0
	if err := await(t.Context(), time.Minute, "it", func() (bool, error) { calls++; return calls == 3, nil }); err != nil || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
	boom, never := errors.New("boom"), func() (bool, error) { return false, nil }
	if err := await(t.Context(), time.Minute, "it", func() (bool, error) { return false, boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	if err := await(t.Context(), 10*time.Millisecond, "it happens", never); err == nil || !strings.Contains(err.Error(), "it happens") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(boom)
	if err := await(ctx, time.Minute, "it", never); !errors.Is(err, boom) {
		t.Error(err)
	}
}

// TestRested: nobody rests who works, and everybody who has ended work a while ago; a node that is gone is an error.
func TestRested(t *testing.T) {
	dir := t.TempDir()
	enough := filepath.Join(dir, "enough")
	start := func(name, script string) *node {
		t.Helper()
		p, err := launch(dir, name, "/bin/sh", "-c", script, "sh", enough)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.kill() })
		return &node{name: name, proc: p}
	}
	p := &pair{primary: start("primary", "exec sleep 600"), replicas: []*node{start("replica", `while [ ! -e "$1" ]; do :; done; exec sleep 600`)}}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*restLooks*restLook, errors.New("it still works"))
	defer cancel()
	if err := p.rested(ctx); err == nil || !strings.Contains(err.Error(), "it still works") {
		t.Errorf("beside a replica that works: %v", err)
	}
	if err := os.WriteFile(enough, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := p.rested(t.Context()); err != nil || time.Since(began) < restLooks*restLook {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	_ = p.replicas[0].proc.kill()
	if err := p.rested(t.Context()); err == nil || !strings.Contains(err.Error(), "replica") {
		t.Errorf("%v, want that the replica has no CPU clock any more", err)
	}
}

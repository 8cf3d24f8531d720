package bench

import (
	"context"
	"errors"
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

package server

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProfile: a node that was asked to stop leaves a whole profile behind, also if its stop fails, and a node that could
// not start leaves the profiler free.
func TestProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	broken := profiled(file, func(context.Context, func(string)) (runnable, error) { return nil, os.ErrPermission })
	if _, err := broken(t.Context(), nil); err == nil {
		t.Fatal("a start that fails was hidden")
	}
	node := &fakeNode{stopErr: os.ErrDeadlineExceeded}
	n, err := profiled(file, func(context.Context, func(string)) (runnable, error) { return node, nil })(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); err == nil || !strings.Contains(err.Error(), os.ErrDeadlineExceeded.Error()) || node.stops != 1 {
		t.Errorf("stop: %v after %d stops of the node, want its own error after one", err, node.stops)
	}
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 100 || b[0] != 0x1f || b[1] != 0x8b {
		t.Errorf("%d bytes (%v), want a profile, which is compressed by gzip", len(b), err)
	}
	if n, err := profiled(filepath.Join(file, "nowhere"), func(context.Context, func(string)) (runnable, error) { return node, nil })(t.Context(), nil); err == nil {
		t.Errorf("%v was started without its profile", n)
	}
}

package node_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/node"
)

// TestBackgroundCPU: a budget that would let background work stand still is refused, with the value and the way out.
func TestBackgroundCPU(t *testing.T) {
	for _, c := range []struct {
		cpu float64
		ok  bool
	}{{0, true}, {node.MinBackgroundCPU, true}, {0.5, true}, {64, true}, {0.001, false}, {-1, false}, {math.NaN(), false}} {
		o := node.Options{Dir: "x", BackgroundCPU: c.cpu}
		o.EnsureDefaults()
		err := o.Validate()
		if c.ok {
			if err != nil {
				t.Errorf("%g processors: %v", c.cpu, err)
			}
		} else if want := fmt.Sprintf("%g processors for background work: give at least 0.01, or 0 for half", c.cpu); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%g processors: %v, want %q", c.cpu, err, want)
		}
	}
}

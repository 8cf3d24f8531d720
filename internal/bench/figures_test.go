package bench

import (
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		list []float64
		want float64
	}{{[]float64{7}, 7}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}, {[]float64{5, 5, 1, 1, 100}, 5}} {
		before := slices.Clone(c.list)
		if got := median(c.list); got != c.want {
			t.Errorf("median(%v) = %g, want %g", c.list, got, c.want)
		}
		if !slices.Equal(before, c.list) {
			t.Errorf("median changed its argument to %v", c.list)
		}
	}
}

// TestRatiosAreOfOneRun: a ratio's two figures are of the same run, and a run that one system failed has none.
func TestRatiosAreOfOneRun(t *testing.T) {
	f := figure{"S1", "rate", "ops/s"}
	var a, b values
	for run, v := range []float64{100, 200, 300, 400} {
		a.set(run, f, v)
	}
	b.set(3, f, 100)
	b.set(0, f, 50)
	b.set(2, f, 0)
	if got, want := ratios(&a, &b, f), []float64{2, 4}; !slices.Equal(got, want) {
		t.Errorf("ratios = %v, want %v", got, want)
	}
	if got, want := b.all(f), []float64{50, 0, 100}; !slices.Equal(got, want) {
		t.Errorf("figures = %v, want %v", got, want)
	}
	if got := ratios(&a, &values{}, f); len(got) != 0 {
		t.Errorf("ratios to nothing = %v", got)
	}
}

func TestTargetEdges(t *testing.T) {
	at := least("S1", "rate", memory, 1.3)
	for v, want := range map[float64]bool{1.29: false, 1.3: true, 1.31: true} {
		if at.met(v) != want {
			t.Errorf("%s of %g: %t, want %t", at, v, !want, want)
		}
	}
	at = most("S4", "CPU", memory, 0.8)
	for v, want := range map[float64]bool{0.79: true, 0.8: true, 0.81: false} {
		if at.met(v) != want {
			t.Errorf("%s of %g: %t, want %t", at, v, !want, want)
		}
	}
}

// TestTargetsAreMeasured: each target is of a scenario that the group covers and of a system that it measures.
func TestTargetsAreMeasured(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenarios() {
		for _, id := range s.covers {
			if seen[id] {
				t.Errorf("%s is covered twice", id)
			}
			seen[id] = true
		}
		for _, at := range s.targets {
			if !slices.Contains(s.covers, at.scenario) {
				t.Errorf("%v: %s %q is of a scenario that it does not cover", s.covers, at.scenario, at.name)
			}
			if at.peer != "" && !slices.Contains(s.peers, at.peer) {
				t.Errorf("%s %q is against %s, which is not measured", at.scenario, at.name, at.peer)
			}
		}
	}
}

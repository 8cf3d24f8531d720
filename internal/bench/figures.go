package bench

import (
	"fmt"
	"slices"
)

// The systems, by the names that reports have.
const (
	ours    = "ours"
	memory  = "M"      // Redis, persistence off
	durable = "D"      // Redis, appendonly yes, appendfsync everysec
	tuned   = "M-best" // Redis, persistence off, full syncs tuned best
	against = "base"   // another build of ours
)

// A figure is one thing that a scenario measures.
type figure struct {
	scenario string // "S1"
	name     string // unique in its scenario
	unit     string
}

func (f figure) String() string { return f.scenario + " " + f.name }

// values are what one system measured: a figure for each run. A run that failed has none.
type values struct {
	order []figure
	runs  map[figure]map[int]float64
}

// set records a figure of a run.
func (v *values) set(run int, f figure, value float64) {
	if v.runs == nil {
		v.runs = map[figure]map[int]float64{}
	}
	if v.runs[f] == nil {
		v.runs[f] = map[int]float64{}
		v.order = append(v.order, f)
	}
	v.runs[f][run] = value
}

// all is a figure over its runs, in their order.
func (v *values) all(f figure) []float64 {
	var runs []int
	for run := range v.runs[f] {
		runs = append(runs, run)
	}
	slices.Sort(runs)
	list := make([]float64, len(runs))
	for i, run := range runs {
		list[i] = v.runs[f][run]
	}
	return list
}

// ratios are a's figure over b's, for each run that has both, in their order. A ratio to nothing is left out.
func ratios(a, b *values, f figure) []float64 {
	var runs []int
	for run := range a.runs[f] {
		if d, ok := b.runs[f][run]; ok && d != 0 {
			runs = append(runs, run)
		}
	}
	slices.Sort(runs)
	list := make([]float64, len(runs))
	for i, run := range runs {
		list[i] = a.runs[f][run] / b.runs[f][run]
	}
	return list
}

// median is the middle value, or the mean of the two in the middle. It panics without any.
func median(list []float64) float64 {
	if len(list) == 0 {
		panic("bench: the median of nothing")
	}
	sorted := slices.Sorted(slices.Values(list))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// A target is what must hold for a figure: for the median of ours, or of the ratios of ours to a peer's.
type target struct {
	scenario, name string
	peer           string // whose figure the ratio is to; "" for the value itself
	atLeast        bool   // or at most
	value          float64
}

func (t target) String() string {
	op, unit := "≤", ""
	if t.atLeast {
		op = "≥"
	}
	if t.peer != "" {
		unit = " ×"
	}
	return fmt.Sprintf("%s %s%s", op, number(t.value), unit)
}

func (t target) met(v float64) bool {
	if t.atLeast {
		return v >= t.value
	}
	return v <= t.value
}

// ratio makes targets against a peer: least gives ≥, most gives ≤.
func least(scenario, name, peer string, v float64) target {
	return target{scenario, name, peer, true, v}
}

func most(scenario, name, peer string, v float64) target {
	return target{scenario, name, peer, false, v}
}

package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Reduction is what is left of a scenario: fewer nodes, shards and steps. It is written "nodes=2,shards=1,steps=0+4+7".
type Reduction struct {
	Nodes, Shards int
	Steps         []int // by their place in the whole schedule, ascending
}

// Whole leaves everything.
func (s Scenario) Whole() Reduction {
	r := Reduction{Nodes: s.Nodes, Shards: s.Shards}
	for i := range s.Steps {
		r.Steps = append(r.Steps, i)
	}
	return r
}

// Reduce applies a reduction.
func (s Scenario) Reduce(r Reduction) Scenario {
	out := s
	out.Nodes, out.Shards, out.Steps = r.Nodes, r.Shards, nil
	for _, i := range r.Steps {
		st := s.Steps[i]
		if st.Node >= r.Nodes {
			st.Node %= r.Nodes
		}
		st.Other %= r.Nodes
		out.Steps = append(out.Steps, st)
	}
	return out
}

func (r Reduction) String() string {
	steps := make([]string, len(r.Steps))
	for i, n := range r.Steps {
		steps[i] = strconv.Itoa(n)
	}
	return fmt.Sprintf("nodes=%d,shards=%d,steps=%s", r.Nodes, r.Shards, strings.Join(steps, "+"))
}

// ParseReduction reads what String wrote, for a scenario.
func ParseReduction(text string, s Scenario) (Reduction, error) {
	var r Reduction
	var steps string
	if n, err := fmt.Sscanf(text, "nodes=%d,shards=%d,steps=%s", &r.Nodes, &r.Shards, &steps); err != nil && n < 2 {
		return r, fmt.Errorf("%q is no reduction: give nodes=N,shards=N,steps=N+N+…, as a failing run prints it", text)
	}
	for _, f := range strings.FieldsFunc(steps, func(c rune) bool { return c == '+' }) {
		i, err := strconv.Atoi(f)
		if err != nil || i < 0 || i >= len(s.Steps) {
			return r, fmt.Errorf("%q: step %q is none of the %d", text, f, len(s.Steps))
		}
		r.Steps = append(r.Steps, i)
	}
	if r.Nodes < 1 || r.Nodes > s.Nodes || r.Shards < 1 || r.Shards > s.Shards {
		return r, fmt.Errorf("%q: the scenario has %d nodes and %d shards", text, s.Nodes, s.Shards)
	}
	return r, nil
}

// Shrink looks for the least of a scenario that still breaks the same invariant, in at most the given number of runs, and
// returns it with its run. It ends with the first run that does not end.
func Shrink(s Scenario, runs int) (Reduction, Result) {
	return shrink(s, runs, func(sc Scenario) Result { return Run(sc, nil) })
}

func shrink(s Scenario, runs int, run func(Scenario) Result) (Reduction, Result) {
	best := s.Whole()
	last := run(s)
	if last.Violation == nil || last.Goroutines != "" {
		return best, last
	}
	broken := last.Violation.Invariant
	try := func(r Reduction) bool {
		if runs <= 0 {
			return false
		}
		runs--
		result := run(s.Reduce(r))
		if result.Goroutines != "" {
			runs = 0 // what it left behind would be in the way of others
		}
		if result.Violation == nil || result.Violation.Invariant != broken {
			return false
		}
		best, last = r, result
		return true
	}
	for size := len(best.Steps); size > 0; {
		less := false
		for at := 0; at < len(best.Steps); {
			end := min(at+size, len(best.Steps))
			r := best
			r.Steps = slices.Delete(slices.Clone(best.Steps), at, end)
			if try(r) {
				less = true
				continue
			}
			at = end
		}
		for r := best; r.Nodes > 1; r = best {
			r.Nodes--
			if !try(r) {
				break
			}
			less = true
		}
		for r := best; r.Shards > 1; r = best {
			r.Shards--
			if !try(r) {
				break
			}
			less = true
		}
		if size > 1 {
			size /= 2
		} else if !less {
			break
		}
		if runs <= 0 {
			break
		}
	}
	return best, last
}

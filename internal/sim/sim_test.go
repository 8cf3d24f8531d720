package sim

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	long  = flag.Bool("long", false, "run 10,000 seeds, and look for the pitfalls that testdata/pitfalls brings back")
	first = flag.Uint64("seed", 1, "first seed")
	until = flag.Int("until", 0, "run at most so many seeds, and stop at the first that breaks an invariant")
	count = flag.Int("seeds", 0, "how many seeds; default 300, and 10,000 with -long")
)

// TestRunThatDoesNotEnd leaves a goroutine behind that nothing can wake, and the bubble that waits for it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/understudy-kv/understudy/internal/sim.waitsForEver"),
		goleak.IgnoreTopFunction("testing/synctest.testingSynctestTest"))
}

// report is what a failing run tells: what broke, how to see it again, and the least transcript that shows it.
func report(sc Scenario, failed Result) string {
	v := failed.Violation
	if failed.Goroutines != "" {
		return fmt.Sprintf("%v\n%s\nreplctl simulate --seed %d\n%s\n\n%s", v, sc, sc.Seed, strings.Join(failed.Transcript, "\n"), failed.Goroutines)
	}
	small, r := Shrink(sc, 60)
	if r.Violation == nil {
		return fmt.Sprintf("%v\n%s\nnot seen again in a second run; the first one:\n%s", v, sc, strings.Join(failed.Transcript, "\n"))
	}
	return fmt.Sprintf("%v\n%s\nreplctl simulate --seed %d --reduce %s\n%s", v, sc, sc.Seed, small, strings.Join(r.Transcript, "\n"))
}

// seeds runs n seeds on all processors and returns the first failing one, in order, with what it broke, or 0. With stop it
// begins none behind the first failure, and never one behind a run that does not end.
func seeds(t *testing.T, from uint64, n int, stop bool) (failed uint64, why *Violation, ran int64) {
	// A run makes 10 MiB of garbage, more or less: it is collected behind every few of them, and at the limit.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 30))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var workers sync.WaitGroup
	var next atomic.Uint64
	var mu sync.Mutex
	stuck := false
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				k := next.Add(1) - 1
				mu.Lock()
				done := k >= uint64(n) || stop && failed != 0 || stuck
				mu.Unlock()
				if done {
					return
				}
				sc := Generate(from+k, Options{})
				r := Run(sc, nil)
				if k%8 == 7 {
					runtime.GC()
				}
				mu.Lock()
				ran++
				stuck = stuck || r.Goroutines != ""
				if r.Violation != nil && (failed == 0 || from+k < failed) {
					failed, why = from+k, r.Violation
				}
				mu.Unlock()
				if r.Violation != nil && !stop {
					t.Errorf("seed %d: %s", from+k, report(sc, r))
				}
			}
		})
	}
	workers.Wait()
	return failed, why, ran
}

// Random schedules of everything that the package knows break no invariant.
func TestSeeds(t *testing.T) {
	n := 300
	switch {
	case *count > 0:
		n = *count
	case *long:
		n = 10_000
	case testing.Short():
		n = 30
	}
	began := time.Now()
	seeds(t, *first, n, false)
	t.Logf("%d seeds from %d in %s", n, *first, time.Since(began).Round(time.Second))
}

// A schedule is the same for the same seed, whatever else is asked for is as asked, and each of its kinds is drawn.
func TestGenerate(t *testing.T) {
	drawn := map[Kind]int{}
	for seed := range uint64(200) {
		a, b := Generate(seed, Options{}), Generate(seed, Options{})
		if fmt.Sprint(a) != fmt.Sprint(b) || fmt.Sprint(a.Steps) != fmt.Sprint(b.Steps) {
			t.Fatalf("seed %d gave %v and %v", seed, a, b)
		}
		if len(a.Steps) != DefaultSteps || a.Nodes < 1 || a.Nodes > MaxNodes || a.Shards < 1 {
			t.Fatalf("seed %d gave %v with %d steps", seed, a, len(a.Steps))
		}
		for _, st := range a.Steps {
			drawn[st.Kind]++
		}
		if c := Generate(seed, Options{Nodes: 2, Shards: 4, Steps: 7}); c.Nodes != 2 || c.Shards != 4 || len(c.Steps) != 7 {
			t.Fatalf("asked for 2 nodes, 4 shards, 7 steps: %v with %d", c, len(c.Steps))
		}
	}
	for k := range kinds {
		if drawn[k] == 0 {
			t.Errorf("%s was never drawn", k)
		}
	}
	if err := (Options{Nodes: 6}).Validate(); err == nil || !strings.Contains(err.Error(), "6 nodes") {
		t.Errorf("6 nodes gave %v", err)
	}
}

// What fails because of two steps is shrunk to these two, and to as few nodes and shards as they need; the text of it is
// read back as the same.
func TestShrink(t *testing.T) {
	s := Generate(7, Options{Nodes: 5, Shards: 3, Steps: 40})
	s.Steps[11].Kind, s.Steps[29].Kind = kinds, kinds
	runs := 0
	run := func(sc Scenario) (r Result) {
		runs++
		bad := 0
		for _, st := range sc.Steps {
			if st.Kind == kinds {
				bad++
			}
		}
		if bad == 2 && sc.Nodes >= 2 {
			r.Violation = &Violation{1, "found"}
		} else if bad == 1 {
			r.Violation = &Violation{2, "another one"}
		}
		return r
	}
	small, r := shrink(s, 1000, run)
	if small.String() != "nodes=2,shards=1,steps=11+29" || r.Violation == nil || r.Violation.Invariant != 1 {
		t.Errorf("shrunk to %s, %v", small, r.Violation)
	}
	if runs > 200 {
		t.Errorf("it took %d runs", runs)
	}
	back, err := ParseReduction(small.String(), s)
	if err != nil || back.String() != small.String() {
		t.Errorf("%s was read as %s, %v", small, back, err)
	}
	for _, bad := range []string{"", "nodes=2", "nodes=9,shards=1,steps=1", "nodes=2,shards=1,steps=40", "nodes=2,shards=1,steps=x"} {
		if _, err := ParseReduction(bad, s); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

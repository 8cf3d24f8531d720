package replctl

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/sim"
)

type simulateCommand struct {
	Seed       uint64 `help:"The first seed; each one is another system and another schedule." default:"1" placeholder:"N"`
	Seeds      int    `help:"How many seeds in a row." default:"1" placeholder:"N"`
	Steps      int    `help:"Steps of each schedule." default:"30" placeholder:"N"`
	Nodes      int    `help:"Nodes of each system, 1 to 5. Default: drawn from the seed." placeholder:"N"`
	Shards     int    `help:"Shards of each system, 1 to 16. Default: drawn from the seed, 1 to 3." placeholder:"N"`
	Transcript bool   `help:"Print what happened, also where nothing is wrong."`
	Reduce     string `help:"Only a part of the schedule, as a failing run prints it." placeholder:"nodes=N,shards=N,steps=N+N+…"`
}

// shrinkRuns bounds the runs that a failing schedule is shrunk by.
const shrinkRuns = 400

func (c *simulateCommand) run(ctx context.Context, out output) int {
	o := sim.Options{Steps: c.Steps, Nodes: c.Nodes, Shards: c.Shards}
	if err := o.Validate(); err != nil {
		return out.complain("%v", err)
	}
	if c.Seeds < 1 || c.Steps < 1 || c.Reduce != "" && c.Seeds != 1 {
		return out.complain("%d seeds of %d steps: give 1 or more of each, and one seed with --reduce", c.Seeds, c.Steps)
	}
	// One processor, and collections between the runs: what the runtime may choose is then mostly the same each time.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	began := time.Now()
	var simulated time.Duration
	for n := range uint64(c.Seeds) {
		if ctx.Err() != nil {
			return out.complain("stopped after %d seeds: %v", n, ctx.Err())
		}
		sc := sim.Generate(c.Seed+n, o)
		part := sc.Whole()
		if c.Reduce != "" {
			var err error
			if part, err = sim.ParseReduction(c.Reduce, sc); err != nil {
				return out.complain("%v", err)
			}
		}
		r := sim.Run(sc.Reduce(part), nil)
		simulated += r.Simulated
		runtime.GC()
		if r.Violation != nil {
			return c.failed(out, sc, r)
		}
		if c.Transcript {
			printTranscript(out, r)
		}
		if c.Transcript || c.Seeds == 1 {
			fmt.Fprintf(out.stdout, "%s\n%d steps, %s simulated, transcript %016x: every invariant held\n", sc.Reduce(part), len(part.Steps), r.Simulated.Round(time.Millisecond), r.Hash())
		}
	}
	if c.Seeds > 1 {
		fmt.Fprintf(out.stdout, "%d seeds from %d: every invariant held in %s of simulated time, which took %s\n", c.Seeds, c.Seed, simulated.Round(time.Second), time.Since(began).Round(time.Second))
	}
	return cli.Clean
}

func printTranscript(out output, r sim.Result) {
	for _, l := range r.Transcript {
		fmt.Fprintln(out.stdout, l)
	}
}

// failed shrinks a failing schedule and prints what is left, and how to repeat it.
func (c *simulateCommand) failed(out output, sc sim.Scenario, r sim.Result) int {
	if r.Goroutines != "" {
		printTranscript(out, r)
		fmt.Fprintln(out.stderr, r.Goroutines)
		return out.complain("%s: %v\nIts goroutines are above.", sc, r.Violation)
	}
	fmt.Fprintf(out.stderr, "%s: %v; looking for the least schedule that shows it\n", sc, r.Violation)
	repeat := fmt.Sprintf("%s simulate --seed %d --steps %d", name, sc.Seed, c.Steps)
	if c.Nodes > 0 {
		repeat += fmt.Sprintf(" --nodes %d", c.Nodes)
	}
	if c.Shards > 0 {
		repeat += fmt.Sprintf(" --shards %d", c.Shards)
	}
	if c.Reduce != "" {
		printTranscript(out, r)
		return out.complain("%v\nrepeat it with: %s --reduce %s", r.Violation, repeat, c.Reduce)
	}
	small, again := sim.Shrink(sc, shrinkRuns)
	if again.Violation == nil {
		printTranscript(out, r)
		return out.complain("%v\nIt was not seen again in a second run: it depends on what the runtime chooses. Try again with: %s", r.Violation, repeat)
	}
	printTranscript(out, again)
	return out.complain("%s\n%v\n%d steps are left of %d; repeat them with: %s --reduce %s", sc.Reduce(small), again.Violation, len(small.Steps), len(sc.Steps), repeat, small)
}

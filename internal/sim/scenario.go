package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Options bound what [Generate] draws. Zero values are drawn, too.
type Options struct {
	Steps  int // default 30
	Nodes  int // 1 to 5
	Shards int // 1 to 16; drawn from 1 to 3
}

// Limits of [Options].
const (
	MaxNodes  = 5
	MaxShards = 16
	// DefaultSteps is how many steps a schedule has.
	DefaultSteps = 30
)

// Validate reports every fault of the options.
func (o Options) Validate() error {
	switch {
	case o.Nodes < 0 || o.Nodes > MaxNodes:
		return fmt.Errorf("%d nodes: give 1 to %d, or 0 to have them drawn", o.Nodes, MaxNodes)
	case o.Shards < 0 || o.Shards > MaxShards:
		return fmt.Errorf("%d shards: give 1 to %d, or 0 to have them drawn", o.Shards, MaxShards)
	case o.Steps < 0:
		return fmt.Errorf("%d steps: give 1 or more, or 0 for %d", o.Steps, DefaultSteps)
	}
	return nil
}

// Scenario is a system and what happens to it. Equal scenarios are the same run, as far as the package promises.
type Scenario struct {
	Seed   uint64
	Nodes  int
	Shards int
	Fsync  string // of every node
	Small  bool   // the backlog is of a few KiB, so that replicas are outrun
	Short  bool   // the reconnect window is shorter than an outage
	Chain  bool   // each node follows the one before it
	Steps  []Step
}

func (s Scenario) window() time.Duration {
	if s.Short {
		return 3 * time.Second
	}
	return time.Minute
}

// String tells the system, without its steps.
func (s Scenario) String() string {
	words := []string{fmt.Sprintf("seed %d: %d nodes, %d shards, fsync %s", s.Seed, s.Nodes, s.Shards, s.Fsync)}
	for _, w := range []struct {
		on   bool
		text string
	}{{s.Small, "a small backlog"}, {s.Short, "a short reconnect window"}, {s.Chain, "a chain"}} {
		if w.on {
			words = append(words, w.text)
		}
	}
	return strings.Join(words, ", ")
}

// Kind is what happens in a step.
type Kind uint8

// The kinds.
const (
	Write    Kind = iota // a client sends a few commands
	Wait                 // ... and then WAIT or WAITAOF
	Cut                  // connections between two nodes break, what is on its way truncated
	Hole                 // nothing passes from one node to another, and nobody is told
	Heal                 // every hole and slow link ends
	Slow                 // a link becomes slow
	Kill                 // kill -9, at once or in a later operation of the disk
	Power                // the machine loses power, at once or in a later operation of the disk
	Stop                 // a clean stop
	Start                // a node that is down comes back
	Promote              // REPLICAOF NO ONE
	Handover             // FAILOVER
	Retarget             // REPLICAOF another
	Window               // longer than the reconnect window nothing happens
	Full                 // a disk is full
	Free                 // ... and has room again
	Trim                 // the logs are trimmed, as the housekeeper does behind every MiB
	Wipe                 // a node's data directory is emptied, and it starts with the role of its first start
	Rest                 // time passes
	kinds
)

var kindNames = [kinds]string{"write", "wait", "cut", "hole", "heal", "slow", "kill", "power", "stop", "start", "promote", "handover", "retarget", "window", "full", "free", "trim", "wipe", "rest"}

func (k Kind) String() string { return kindNames[k] }

// weights say how often a kind is drawn.
var weights = [kinds]int{
	Write: 36, Wait: 9, Cut: 7, Hole: 5, Heal: 7, Slow: 3, Kill: 8, Power: 5, Stop: 3, Start: 13, Promote: 5, Handover: 5, Retarget: 4,
	Window: 2, Full: 2, Free: 4, Trim: 4, Wipe: 1, Rest: 6,
}

// Leader as a step's node is whoever the schedule holds to be the primary at that moment.
const Leader = -1

// Step is one thing that happens, and how long the driver waits behind it. Seed decides everything else about it, so that
// a step stays what it is when others are left out.
type Step struct {
	Kind  Kind
	Node  int // Leader, or a number from 0
	Other int
	After time.Duration
	Seed  uint64
}

func (s Step) rng() *rand.Rand { return rand.New(rand.NewPCG(s.Seed, uint64(s.Kind))) }

// Generate draws a scenario.
func Generate(seed uint64, o Options) Scenario {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	s := Scenario{Seed: seed, Nodes: 1 + rng.IntN(MaxNodes), Shards: 1 + rng.IntN(3)}
	if s.Nodes == 1 && rng.IntN(4) > 0 {
		s.Nodes = 3
	}
	if o.Nodes > 0 {
		s.Nodes = o.Nodes
	}
	if o.Shards > 0 {
		s.Shards = o.Shards
	}
	s.Fsync = []string{"always", "everysec", "everysec", "no"}[rng.IntN(4)]
	s.Small, s.Short, s.Chain = rng.IntN(3) == 0, rng.IntN(3) == 0, rng.IntN(4) == 0
	steps := o.Steps
	if steps == 0 {
		steps = DefaultSteps
	}
	total := 0
	for _, w := range weights {
		total += w
	}
	for range steps {
		n := rng.IntN(total)
		st := Step{Seed: rng.Uint64()}
		for n >= weights[st.Kind] {
			n -= weights[st.Kind]
			st.Kind++
		}
		st.Node, st.Other = rng.IntN(s.Nodes), rng.IntN(s.Nodes)
		if mostly := rng.IntN(10) < 9; st.Kind == Handover || mostly && (st.Kind == Write || st.Kind == Wait) {
			st.Node = Leader
		}
		st.After = after(st, s, rng)
		s.Steps = append(s.Steps, st)
	}
	return s
}

// after is how long the driver waits behind a step: mostly for moments, so that the next one meets what this one began.
func after(st Step, s Scenario, rng *rand.Rand) time.Duration {
	switch n := rng.IntN(20); {
	case st.Kind == Window:
		return s.window() + 2*time.Second
	case st.Kind == Rest || n < 2:
		return time.Duration(500+rng.IntN(4000)) * time.Millisecond
	case n < 7:
		return time.Duration(50+rng.IntN(450)) * time.Millisecond
	}
	return time.Duration(100+rng.IntN(30_000)) * time.Microsecond
}

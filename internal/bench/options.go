package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/internal/units"
)

// Options are the flags of replctl bench.
type Options struct {
	Scenario   []string      `help:"Scenarios to run, such as S1,S4; all if none is named." placeholder:"S1,…"`
	Peer       string        `help:"A redis-server to measure beside: its path or its name. Without it there are no ratios." placeholder:"PROGRAM"`
	Against    string        `help:"Directory with another build of primary and replica to measure beside, under the name base." placeholder:"DIR"`
	Modes      []string      `help:"How the peer is run: M (persistence off), D (AOF, everysec)." default:"M,D"`
	Runs       int           `help:"How often each system is measured; the systems take turns." default:"5"`
	Duration   time.Duration `help:"How long each load lasts." default:"5s"`
	Sustained  time.Duration `help:"How long the loads of S2 last." default:"60s"`
	Away       time.Duration `help:"How long the replica of S7 is away." default:"5s"`
	Keys       uint64        `help:"Keys that are drawn from, and that are loaded first." default:"1000000"`
	Conns      int           `help:"Connections of the load generator." default:"50"`
	Threads    int           `help:"Threads of the load generator." default:"1"`
	Pipelines  []int         `help:"Pipelines of S1, S2 and S8, the longest first." default:"64,16,1"`
	Generator  string        `help:"Who makes the load of S1, S2 and S8: own or redis-benchmark." default:"own"`
	Grow       []uint64      `help:"Keys of the data sets of S13." default:"1000000,4000000,16000000"`
	GrowShards []int         `help:"Shard counts of S13." default:"1,2,4,8,16"`
	GrowCopies []int         `help:"Numbers of replicas of S13." default:"1,2,4,8"`
	Quick      bool          `help:"Make every scenario small: a look at whether it works, no measurement."`
	Flags      []string      `help:"Further flags of our programs, such as --memory=1GiB; both get them." placeholder:"FLAG" sep:"none"`
	Memory     units.Bytes   `help:"--memory of our programs, where it is not their default." default:"0"`
	Bin        string        `help:"Directory with primary and replica. Default: where replctl itself is." placeholder:"DIR"`
	Dir        string        `help:"Directory on the disk to measure; a new one is made in it, and removed. Default: the present one." placeholder:"DIR"`
	Profile    string        `help:"Directory for CPU profiles of our programs, one file a process." placeholder:"DIR"`
	JSON       string        `help:"File for the report as JSON; - prints it instead of the table." name:"json" placeholder:"FILE"`
}

// Validate reports every fault of the options. The parser calls it.
func (o *Options) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	names := scenarioNames()
	for _, s := range o.Scenario {
		if !slices.Contains(names, s) {
			fault("--scenario: %q; give some of %s", s, strings.Join(names, ","))
		}
	}
	for _, m := range o.Modes {
		if m != memory && m != durable {
			fault("--modes: %q; give M, D or both", m)
		}
	}
	for _, p := range o.Pipelines {
		if p < 1 || p > 10_000 {
			fault("--pipelines: %d is not within 1 and 10000", p)
		}
	}
	if o.Runs < 1 {
		fault("--runs: %d; give at least 1", o.Runs)
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"duration", o.Duration}, {"sustained", o.Sustained}, {"away", o.Away}} {
		if d.d < 10*time.Millisecond || d.d > time.Hour {
			fault("--%s: %s is not within 10ms and 1h", d.name, d.d)
		}
	}
	if o.Keys < 100 || o.Keys > 1<<32 {
		fault("--keys: %d is not within 100 and 2^32", o.Keys)
	}
	if o.Threads < 1 || o.Conns < o.Threads || o.Conns > 10_000 {
		fault("--conns, --threads: %d connections for %d threads; give each thread at least one connection, and at most 10000 in all", o.Conns, o.Threads)
	}
	if o.Generator != genOwn && o.Generator != genRedis {
		fault("--generator: %q; give %s or %s", o.Generator, genOwn, genRedis)
	}
	for _, n := range append(slices.Clone(o.GrowShards), o.GrowCopies...) {
		if n < 1 || n > 256 {
			fault("--grow-shards, --grow-copies: %d is not within 1 and 256", n)
		}
	}
	return errors.Join(errs...)
}

// The load generators.
const (
	genOwn   = "own"
	genRedis = "redis-benchmark"
)

// shrink makes a run small.
func (o *Options) shrink() {
	o.Keys = min(o.Keys, 5_000)
	o.Duration = min(o.Duration, 200*time.Millisecond)
	o.Sustained = min(o.Sustained, 200*time.Millisecond)
	o.Away = min(o.Away, 500*time.Millisecond)
	o.Grow = []uint64{2_000, 4_000}
	o.GrowShards = []int{1, 2}
	o.GrowCopies = []int{1, 2}
}

// wants reports whether a scenario was asked for.
func (o *Options) wants(name string) bool {
	return len(o.Scenario) == 0 || slices.Contains(o.Scenario, name)
}

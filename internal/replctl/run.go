package replctl

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/version"
)

const name = "replctl"

type grammar struct {
	Status   statusCommand    `cmd:"" help:"Show every shard of a primary, a replica or both, the worst first."`
	Verify   verifyCommand    `cmd:"" help:"Compare two keyspaces at one identical position of every shard, while writes go on."`
	Log      logCommand       `cmd:"" help:"Print the frames of a data directory's log, and find damage in them."`
	Surplus  surplusCommand   `cmd:"" help:"List, print and send again the mutations that a node had alone and saved before it rejoined."`
	Bench    benchCommand     `cmd:"" help:"Measure primary and replica, and beside them redis-server, on this machine."`
	Simulate simulateCommand  `cmd:"" help:"Run whole systems in simulated time, by schedules of faults that are drawn from a seed, and check that nothing is lost."`
	Version  kong.VersionFlag `help:"Print the version and exit."`
}

// output is where a command writes.
type output struct {
	stdout, stderr io.Writer
}

func (o output) complain(format string, args ...any) int {
	fmt.Fprintf(o.stderr, name+": "+format+"\n", args...)
	return cli.Failed
}

// command is one of replctl's. It returns the exit status.
type command interface {
	run(ctx context.Context, out output) int
}

// Run is the program. It ends when it has its answer, ctx ends or a signal comes, and returns the exit status.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var g grammar
	k, err := cli.Parse(&g, args, stdout, stderr, kong.Name(name), kong.Description("Look at the replication of Understudy nodes."),
		kong.Vars{"version": name + " " + version.String()})
	if err != nil {
		return cli.Status(err, name, stderr)
	}
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	selected := k.Selected().Target.Addr().Interface().(command)
	return selected.run(ctx, output{stdout, stderr})
}

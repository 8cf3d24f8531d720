package replctl

import (
	"context"

	"github.com/understudy-kv/understudy/internal/bench"
	"github.com/understudy-kv/understudy/internal/cli"
)

type benchCommand struct {
	bench.Options `embed:""`
}

func (c *benchCommand) run(ctx context.Context, out output) int {
	if err := bench.Run(ctx, c.Options, out.stdout, out.stderr); err != nil {
		return out.complain("bench: %v", err)
	}
	return cli.Clean
}

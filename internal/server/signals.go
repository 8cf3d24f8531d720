package server

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// runSignalled is run with the process's own signals: SIGTERM and SIGINT stop cleanly, a second one at once.
func runSignalled(ctx context.Context, log hclog.Logger, stdout io.Writer, start starter) int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	return run(ctx, log, stdout, signals, stopLimit, start)
}

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/cli"
)

// stopLimit is how long a clean stop may take. What has not been flushed by then is replayed from the log at the next
// start, so giving up loses nothing that was acknowledged under the fsync policy.
const stopLimit = 9 * time.Second

// stopStep is in what steps that is counted: one that takes longer, since this process or its machine did not run, is one all the same.
const stopStep = time.Second

// errUnclean is why a stop was given up.
var errUnclean = errors.New("stopped without finishing: the next start replays the log")

// runnable is a running node.
type runnable interface {
	// ready is the line for standard output.
	ready() string
	// failed delivers the error that ends the process, if one does.
	failed() <-chan error
	// stop drains and records the clean stop. It is called once.
	stop() error
}

// starter opens a node. quit asks the process to stop; it may be called at any time, from any goroutine.
type starter func(ctx context.Context, quit func(reason string)) (runnable, error)

// RunPrimary is the program primary: it parses args, serves until ctx ends or a signal comes, and returns the exit
// status.
func RunPrimary(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o PrimaryOptions
	if err := primaryProgram.parse(&o, args, stdout, stderr); err != nil {
		return cli.Status(err, primaryProgram.name, stderr)
	}
	log := newLogger(primaryProgram.name, &o.NodeOptions, stderr)
	return runSignalled(ctx, log, stdout, profiled(o.CPUProfile, func(ctx context.Context, quit func(string)) (runnable, error) {
		return startPrimary(ctx, o, log, quit)
	}))
}

// RunReplica is the program replica, as [RunPrimary].
func RunReplica(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o ReplicaOptions
	if err := replicaProgram.parse(&o, args, stdout, stderr); err != nil {
		return cli.Status(err, replicaProgram.name, stderr)
	}
	log := newLogger(replicaProgram.name, &o.NodeOptions, stderr)
	return runSignalled(ctx, log, stdout, profiled(o.CPUProfile, func(ctx context.Context, quit func(string)) (runnable, error) {
		return startReplica(ctx, o, log, quit)
	}))
}

// run starts a node, says when it is ready, and stops it when ctx ends, a signal comes, or the node asks for it. A second
// signal, or a stop that takes longer than limit, ends the waiting: what is left ends with the process.
func run(ctx context.Context, log hclog.Logger, stdout io.Writer, signals <-chan os.Signal, limit time.Duration, start starter) int {
	ctx, quit := context.WithCancelCause(ctx)
	defer quit(nil)
	done := make(chan error, 1)
	// run starts the node's life. It owns the node, ends when the node has stopped or could not start, and run waits for it,
	// except when it gives up.
	go func() { done <- live(ctx, quit, log, stdout, start) }()

	select {
	case err := <-done:
		return tell(log, err)
	case s := <-signals:
		quit(fmt.Errorf("signal: %s", s))
	case <-ctx.Done():
	}
	log.Info("stopping", "reason", context.Cause(ctx))
	timer := time.NewTimer(stopStep)
	defer timer.Stop()
	for took := time.Duration(0); took < limit; {
		select {
		case err := <-done:
			return tell(log, err)
		case s := <-signals:
			return tell(log, fmt.Errorf("second signal, %s: %w", s, errUnclean))
		case <-timer.C:
			took += stopStep
			timer.Reset(stopStep)
		}
	}
	return tell(log, fmt.Errorf("not stopped after %s: %w", limit, errUnclean))
}

func tell(log hclog.Logger, err error) int {
	if err != nil {
		log.Error("failed", "error", err)
		return cli.Failed
	}
	log.Info("stopped cleanly")
	return cli.Clean
}

// live is a node's life from its start to its end.
func live(ctx context.Context, quit context.CancelCauseFunc, log hclog.Logger, stdout io.Writer, start starter) error {
	n, err := start(ctx, func(reason string) { quit(errors.New(reason)) })
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (the start was interrupted: %w)", err, context.Cause(ctx))
		}
		return fmt.Errorf("cannot start: %w", err)
	}
	if ctx.Err() == nil {
		if _, err := fmt.Fprintln(stdout, n.ready()); err != nil {
			return errors.Join(fmt.Errorf("cannot tell that it is ready: %w", err), n.stop())
		}
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-n.failed():
	}
	return errors.Join(err, n.stop())
}

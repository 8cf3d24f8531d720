package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/cli"
)

// fakeNode is a node whose life the test holds in its hands.
type fakeNode struct {
	fail    chan error
	failure error // what fail delivers at once
	stopFor time.Duration
	stopErr error
	stops   int
}

func (n *fakeNode) ready() string        { return "ready role=fake" }
func (n *fakeNode) failed() <-chan error { return n.fail }
func (n *fakeNode) stop() error {
	n.stops++
	time.Sleep(n.stopFor) // in a synctest bubble: it passes at once
	return n.stopErr
}

type outcome struct {
	code        int
	stdout, log string
	took        time.Duration
}

// runFake runs a node in a bubble of synthetic time. act is called once everything has come to rest.
func runFake(t *testing.T, n *fakeNode, startErr error, act func(cancel func(), signals chan<- os.Signal, quit func(string))) (o outcome) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n.fail = make(chan error, 1) // made in the bubble: waiting for it counts as being at rest
		if n.failure != nil {
			n.fail <- n.failure
		}
		var stdout, log bytes.Buffer
		signals := make(chan os.Signal, 2)
		var ask func(string)
		begin := time.Now()
		finished := make(chan int)
		// The test starts run beside itself so that it can act on it; it waits for the exit status.
		go func() {
			finished <- run(ctx, hclog.New(&hclog.LoggerOptions{Output: &log}), &stdout, signals, stopLimit, func(_ context.Context, quit func(string)) (runnable, error) {
				ask = quit
				if startErr != nil {
					return nil, startErr
				}
				return n, nil
			})
		}()
		synctest.Wait()
		if act != nil {
			act(cancel, signals, ask)
		}
		o.code = <-finished
		o.took = time.Since(begin)
		time.Sleep(2 * time.Minute) // the bubble may not end before a stop that was given up does
		o.stdout, o.log = stdout.String(), log.String()
	})
	return o
}

func TestRunEndsWithTheStatusThatTells(t *testing.T) {
	for _, c := range []struct {
		name     string
		node     fakeNode
		startErr error
		act      func(cancel func(), signals chan<- os.Signal, quit func(string))
		code     int
		took     time.Duration
		log      string
		stops    int
	}{
		{"a signal stops cleanly", fakeNode{stopFor: 3 * time.Second}, nil, func(_ func(), s chan<- os.Signal, _ func(string)) { s <- syscall.SIGTERM }, cli.Clean, 3 * time.Second, "signal: terminated", 1},
		{"the context stops cleanly", fakeNode{}, nil, func(cancel func(), _ chan<- os.Signal, _ func(string)) { cancel() }, cli.Clean, 0, "stopped cleanly", 1},
		{"SHUTDOWN stops cleanly", fakeNode{}, nil, func(_ func(), _ chan<- os.Signal, quit func(string)) { quit("SHUTDOWN by a client") }, cli.Clean, 0, "SHUTDOWN by a client", 1},
		{"a second signal stops at once", fakeNode{stopFor: time.Minute}, nil, func(_ func(), s chan<- os.Signal, _ func(string)) {
			s <- syscall.SIGTERM
			synctest.Wait()
			s <- syscall.SIGINT
		}, cli.Failed, 0, "second signal, interrupt", 1},
		{"a stop that takes too long is given up", fakeNode{stopFor: time.Minute}, nil, func(_ func(), s chan<- os.Signal, _ func(string)) { s <- syscall.SIGTERM }, cli.Failed, stopLimit, "not stopped after 9s", 1},
		{"a failed stop", fakeNode{stopErr: errors.New("disk full")}, nil, func(_ func(), s chan<- os.Signal, _ func(string)) { s <- syscall.SIGTERM }, cli.Failed, 0, "disk full", 1},
		{"a failed start", fakeNode{}, errors.New("directory in use"), nil, cli.Failed, 0, "cannot start: directory in use", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := runFake(t, &c.node, c.startErr, c.act)
			if o.code != c.code || o.took != c.took || !strings.Contains(o.log, c.log) || c.took < time.Minute && c.node.stops != c.stops {
				t.Errorf("status %d after %s, %d stops, log:\n%s\nwant status %d after %s, %d stops, and %q", o.code, o.took, c.node.stops, o.log, c.code, c.took, c.stops, c.log)
			}
			if ready := o.stdout == "ready role=fake\n"; ready != (c.startErr == nil) {
				t.Errorf("standard output: %q", o.stdout)
			}
		})
	}
}

func TestRunEndsWhenTheNodeFails(t *testing.T) {
	n := &fakeNode{failure: errors.New("the listener is gone")}
	o := runFake(t, n, nil, nil)
	if o.code != cli.Failed || !strings.Contains(o.log, "the listener is gone") || n.stops != 1 {
		t.Errorf("status %d, %d stops, log:\n%s", o.code, n.stops, o.log)
	}
}

func TestBadUsageIsStatus2AndNamesEveryFault(t *testing.T) {
	for _, c := range []struct {
		run  func(context.Context, []string, io.Writer, io.Writer) int
		args string
		want []string
	}{
		{RunPrimary, "--shards 300 --fsync maybe", []string{"primary: --shards: 300", "primary: --fsync: \"maybe\"", "run primary --help"}},
		{RunPrimary, "--port 5", []string{"primary: unknown flag --port"}},
		{RunReplica, "", []string{"replica: --primary is required", "run replica --help"}},
	} {
		var stdout, stderr bytes.Buffer
		if code := c.run(t.Context(), strings.Fields(c.args), &stdout, &stderr); code != cli.Usage || stdout.Len() > 0 {
			t.Errorf("%s: status %d, standard output %q", c.args, code, stdout.String())
		}
		for _, want := range c.want {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%s: %q does not say %q", c.args, stderr.String(), want)
			}
		}
	}
}

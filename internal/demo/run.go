package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/version"
)

const name = "demo"

type grammar struct {
	Dir     string           `help:"New or empty directory for the two nodes' data and logs; it is kept. Default: a temporary one." placeholder:"DIR"`
	Once    bool             `help:"End when the story has been told. The exit status is 0 only if the mirror is identical."`
	Shards  int              `help:"Shards of the keyspace." default:"4"`
	Rate    int              `help:"Writes a second." default:"4000"`
	Away    time.Duration    `help:"How long the link is cut." default:"5s"`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

// Validate is called by the parser.
func (g *grammar) Validate() error {
	var errs []error
	if g.Shards < 1 || g.Shards > 64 {
		errs = append(errs, fmt.Errorf("--shards: %d; the demo takes 1 to 64", g.Shards))
	}
	if g.Rate < 50 || g.Rate > 50_000 {
		errs = append(errs, fmt.Errorf("--rate: %d; the demo takes 50 to 50000 writes a second", g.Rate))
	}
	if g.Away < 0 || g.Away > 30*time.Second {
		errs = append(errs, fmt.Errorf("--away: %s; the demo takes up to 30s, half of the reconnect window", g.Away))
	}
	return errors.Join(errs...)
}

// Run is the program. With a hidden first argument it is one of the demo's own children instead. It ends when the story
// is told, ctx ends or a signal comes, and returns the exit status.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if role, child := strings.CutPrefix(args[0], childPrefix); child {
			return runChild(role, args[1:], stdin, stdout, stderr)
		}
	}
	var g grammar
	_, err := cli.Parse(&g, args, stdout, stderr, kong.Name(name), kong.Vars{"version": name + " " + version.String()},
		kong.Description("Watch a replica mirror a primary through a cut link and a kill -9."))
	if err != nil {
		return cli.Status(err, name, stderr)
	}
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	identical, err := g.stage(ctx, stdout)
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted before the end of the story")
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
	}
	if err != nil || !identical {
		return cli.Failed
	}
	return cli.Clean
}

// stage prepares the directory, tells the story in it, and clears up.
func (g *grammar) stage(ctx context.Context, stdout io.Writer) (identical bool, err error) {
	dir := g.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "understudy-demo-"); err != nil {
			return false, err
		}
		defer func() {
			if err == nil && identical {
				err = os.RemoveAll(dir)
			} else {
				fmt.Fprintf(stdout, "What the nodes wrote and logged is left in %s.\n", dir)
			}
		}()
	} else if err := prepare(dir); err != nil {
		return false, err
	}
	s := &story{grammar: g, dir: dir, out: stdout, began: time.Now()}
	release, err := s.choosePorts()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, release()) }()
	defer func() { err = errors.Join(err, s.end()) }()
	return s.tell(ctx)
}

// prepare makes sure that the figures are those of this run alone.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("--dir: %s is not empty; give a new directory, or remove what is in it", dir)
	}
	return err
}

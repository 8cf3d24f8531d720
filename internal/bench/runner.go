package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// A scenario measures one system at a time. What it measures belongs to the ids that it covers: several of the issue's
// scenarios may be read off one run.
type scenario struct {
	covers  []string // "S1", "S4"
	what    string   // one line
	peers   []string // systems beside ours
	targets []target
	run     func(ctx context.Context, t *turn) error
}

// scenarios are all of them, in the order in which they run.
func scenarios() []scenario {
	return []scenario{replicatedSet(), sustainedSet(), twoReplicas(), visibility(), fullSync(), resume(), gets(), mixed(), restart(), growth(), background()}
}

func scenarioNames() (names []string) {
	for _, s := range scenarios() {
		names = append(names, s.covers...)
	}
	return names
}

// turn is one measurement of one system.
type turn struct {
	*Options
	system system
	dir    string // new and empty
	shared *shared
	record func(scenario, name, unit string, value float64)
}

// pair starts the turn's system, and ends it with the turn.
func (t *turn) pair(ctx context.Context, replicas, shards int, f func(*pair) error) error {
	p, err := open(ctx, t.system, t.dir, replicas, shards)
	if err == nil {
		err = f(p)
	}
	return errors.Join(err, p.end())
}

// Report is what a bench found.
type Report struct {
	Time     time.Time         `json:"time"`
	Command  string            `json:"command"`
	Machine  string            `json:"machine"`
	Cores    int               `json:"cores"`
	Shards   int               `json:"shards"`
	Versions map[string]string `json:"versions"`
	Runs     int               `json:"runs"`
	Seconds  float64           `json:"seconds"`
	Rows     []Row             `json:"rows"`
	Failures []string          `json:"failures,omitempty"`
}

// Run measures what the options ask for, and prints the report to stdout and progress to stderr. An error means that
// something could not be measured; a missed target is none.
func Run(ctx context.Context, o Options, stdout, stderr io.Writer) (err error) {
	if supported != nil {
		return supported
	}
	if o.Quick {
		o.shrink()
	}
	if o.Bin == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.Bin = filepath.Dir(self)
	}
	if o.Dir == "" {
		o.Dir = "."
	}
	if err := o.paths(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.Dir, "understudy-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &runner{o: o, dir: dir, stderr: stderr, began: time.Now(), measured: map[string]*values{}}
	rep := b.measure(ctx)
	if err := o.write(rep, b.systems(), stdout); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	if len(rep.Failures) > 0 {
		return fmt.Errorf("%d measurements failed", len(rep.Failures))
	}
	return nil
}

// paths makes every path absolute, since the children run elsewhere, and looks whether the programs are there.
func (o *Options) paths() error {
	for _, p := range []*string{&o.Bin, &o.Dir, &o.Against, &o.Profile} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	for _, dir := range []string{o.Bin, o.Against} {
		for _, program := range []string{"primary", "replica"} {
			if dir == "" {
				continue
			}
			if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
				return fmt.Errorf("the program %s is needed: build ./cmd/... into one directory and name it with --bin (or --against): %w", program, err)
			}
		}
	}
	if o.Profile != "" {
		if err := os.MkdirAll(o.Profile, 0o755); err != nil {
			return err
		}
	}
	if o.Peer == "" {
		return nil
	}
	path, err := exec.LookPath(o.Peer)
	if err != nil {
		return fmt.Errorf("--peer: %w; install it, or leave the flag out to measure ours alone", err)
	}
	o.Peer, err = filepath.Abs(path)
	return err
}

// write prints the report as the options ask for it.
func (o *Options) write(rep *Report, systems []string, stdout io.Writer) error {
	j, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	j = append(j, '\n')
	if o.JSON == "-" {
		_, err = stdout.Write(j)
		return err
	}
	if o.JSON != "" {
		if err := os.WriteFile(o.JSON, j, 0o644); err != nil {
			return err
		}
	}
	_, err = io.WriteString(stdout, rep.text(systems))
	return err
}

// text is the report for people.
func (r *Report) text(systems []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, %d shards, %d runs, %.0f s\n\n", r.Machine, r.Cores, r.Shards, r.Runs, r.Seconds)
	b.WriteString(table(shown(systems, r.Rows), r.Rows))
	for _, f := range r.Failures {
		b.WriteString("FAILED " + f + "\n")
	}
	return b.String()
}

// machine names the kernel and the architecture.
func machine() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS + "/" + runtime.GOARCH
	}
	return "Linux " + strings.TrimSpace(string(release)) + " " + runtime.GOARCH
}

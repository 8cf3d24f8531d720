package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// runner lets the systems take turns.
type runner struct {
	o        Options
	dir      string
	stderr   io.Writer
	began    time.Time
	measured map[string]*values
	failures []string
	shared   shared
}

// systems are the names of all that the options ask for, ours first.
func (b *runner) systems() []string {
	list := []string{ours}
	if b.o.Against != "" {
		list = append(list, against)
	}
	if b.o.Peer != "" {
		list = append(list, b.o.Modes...)
		if slices.Contains(b.o.Modes, memory) && b.o.wants("S6") {
			list = append(list, tuned)
		}
	}
	return list
}

// make is the system of that name.
func (b *runner) make(name, scenario string, run int) system {
	switch name {
	case ours:
		return &understudy{label: ours, bin: b.o.Bin, flags: b.o.Flags, memory: b.o.Memory,
			profile: func(node string) string { return profileName(b.o.Profile, scenario, run, node) }}
	case against:
		return &understudy{label: against, bin: b.o.Against, flags: b.o.Flags, memory: b.o.Memory}
	case memory:
		if scenario == "S6" {
			return redisDefault(b.o.Peer)
		}
		return redisMemory(b.o.Peer)
	case durable:
		return redisDurable(b.o.Peer)
	case tuned:
		return redisTuned(b.o.Peer)
	}
	panic("bench: no system " + name)
}

// measure runs every scenario that was asked for.
func (b *runner) measure(ctx context.Context) *Report {
	var targets []target
	for _, s := range scenarios() {
		if !slices.ContainsFunc(s.covers, b.o.wants) {
			continue
		}
		targets = append(targets, s.targets...)
		for run := range b.o.Runs {
			for _, name := range rotated(b.systems(), run) {
				if name != ours && name != against && !slices.Contains(s.peers, name) || ctx.Err() != nil {
					continue
				}
				b.turn(ctx, s, name, run)
			}
		}
	}
	return &Report{
		Time: b.began, Command: "replctl " + strings.Join(os.Args[1:], " "), Machine: machine(), Cores: defaultShards(), Shards: defaultShards(), Versions: b.versions(),
		Runs: b.o.Runs, Seconds: time.Since(b.began).Seconds(), Rows: judge(b.systems(), b.measured, targets), Failures: b.failures,
	}
}

// rotated is names, beginning with another one in each run: what the turn before leaves behind, a disk that still writes or a host that
// has just had something to do, is not always the same system's.
func rotated(names []string, run int) []string {
	at := run % len(names)
	return slices.Concat(names[at:], names[:at])
}

// turn measures one system once. What it recorded before it failed is dropped: a run that went wrong has no figures.
func (b *runner) turn(ctx context.Context, s scenario, name string, run int) {
	id := strings.Join(s.covers, "+")
	fmt.Fprintf(b.stderr, "%6.0fs  %-10s run %d of %d: %s\n", time.Since(b.began).Seconds(), id, run+1, b.o.Runs, name)
	if b.measured[name] == nil {
		b.measured[name] = &values{}
	}
	type recorded struct {
		f figure
		v float64
	}
	var got []recorded
	dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d-%s", id, run+1, name))
	t := &turn{Options: &b.o, system: b.make(name, id, run+1), dir: dir, shared: &b.shared, record: func(scenario, figureName, unit string, value float64) {
		if b.o.wants(scenario) {
			got = append(got, recorded{figure{scenario, figureName, unit}, value})
		}
	}}
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = s.run(ctx, t)
	}
	if err == nil {
		err = os.RemoveAll(dir)
	}
	err = errors.Join(err, settle(b.dir))
	if err != nil {
		if ctx.Err() == nil {
			b.failures = append(b.failures, fmt.Sprintf("%s run %d, %s: %v%s", id, run+1, name, err, b.lastWords(dir)))
			fmt.Fprintf(b.stderr, "         %s\n", b.failures[len(b.failures)-1])
		}
		return
	}
	for _, r := range got {
		b.measured[name].set(run, r.f, r.v)
	}
}

// lastWords are the ends of the logs in dir, which is removed with the rest.
func (b *runner) lastWords(dir string) string {
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	var text strings.Builder
	for _, path := range logs {
		if content, err := os.ReadFile(path); err == nil {
			fmt.Fprintf(&text, "\n  %s: …%s", filepath.Base(path), content[max(0, len(content)-1000):])
		}
	}
	return text.String()
}

// versions asks each program for its version.
func (b *runner) versions() map[string]string {
	all := map[string]string{}
	for name, program := range map[string]string{ours: filepath.Join(b.o.Bin, "primary"), against: filepath.Join(b.o.Against, "primary"), "peer": b.o.Peer} {
		if name == against && b.o.Against == "" || program == "" {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if out, err := exec.CommandContext(ctx, program, "--version").Output(); err == nil {
			all[name] = strings.TrimSpace(string(out))
		}
		cancel()
	}
	return all
}

// mkdir makes a directory that must be new.
func mkdir(dir string) error { return os.Mkdir(dir, 0o755) }

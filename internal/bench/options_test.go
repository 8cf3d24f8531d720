package bench

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// parse gives the options of a command line, with the defaults that the tags have.
func parse(t *testing.T, args ...string) (*Options, error) {
	t.Helper()
	var o Options
	k, err := kong.New(&o, kong.Exit(func(int) { t.Error("kong ended the process") }))
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Parse(args)
	return &o, err
}

// TestFaultsOfOptions: all are told at once, each with its value.
func TestFaultsOfOptions(t *testing.T) {
	_, err := parse(t, "--scenario=S1,S99", "--modes=X", "--runs=0", "--duration=1ms", "--keys=5", "--conns=1", "--threads=2", "--generator=me", "--pipelines=0", "--grow-copies=300")
	for _, want := range []string{`--scenario: "S99"`, `--modes: "X"`, "--runs: 0", "--duration: 1ms", "--keys: 5", "1 connections for 2 threads", `--generator: "me"`, "--pipelines: 0", "300 is not within"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: it does not tell of %s", err, want)
		}
	}
}

// TestDefaultsAreTheIssues: the figures of the issue are what a run without flags measures.
func TestDefaultsAreTheIssues(t *testing.T) {
	o, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if o.Keys != 1_000_000 || o.Conns != 50 || o.Runs != 5 || len(o.Pipelines) != 3 || o.Sustained.Seconds() != 60 || o.Away.Seconds() != 5 || o.Generator != genOwn {
		t.Errorf("%+v", o)
	}
	for _, s := range scenarioNames() {
		if !o.wants(s) {
			t.Errorf("%s does not run by default", s)
		}
	}
	o.shrink()
	if err := o.Validate(); err != nil {
		t.Errorf("--quick makes of the defaults: %v", err)
	}
}

// TestSystems: without a peer there is ours alone; Redis tuned best is there for S6 only, and only in memory.
func TestSystems(t *testing.T) {
	for args, want := range map[string]string{
		"":                                    "ours",
		"--peer=x":                            "ours M D M-best",
		"--peer=x --scenario=S1":              "ours M D",
		"--peer=x --modes=D":                  "ours D",
		"--peer=x --against=y --scenario=S11": "ours base M D",
	} {
		o, err := parse(t, strings.Fields(args)...)
		if err != nil {
			t.Fatal(err)
		}
		b := runner{o: *o}
		if got := strings.Join(b.systems(), " "); got != want {
			t.Errorf("%q: %s, want %s", args, got, want)
		}
	}
}

// TestPerOffset: an offset of Redis's is a byte; one of ours as many as its mutations take.
func TestPerOffset(t *testing.T) {
	if got := (flow{primary: 9}).perOffset(flow{}); got != 1 {
		t.Errorf("Redis: %g", got)
	}
	if got := (flow{bytes: 1500, mutations: 15}).perOffset(flow{bytes: 500, mutations: 5}); got != 100 {
		t.Errorf("ours: %g", got)
	}
}

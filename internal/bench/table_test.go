package bench

import (
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// golden compares with a file of testdata.
func golden(t *testing.T, file string, got string) {
	t.Helper()
	path := "testdata/" + file
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -rewrite accepts it):\n%s\nwant\n%s", path, got, want)
	}
}

// story is a report with a figure of every kind: more and less than a target, without a peer, with a run missing, and a failure.
func story() (*Report, []string) {
	systems := []string{ours, memory, durable, tuned}
	rate, cpu, own := figure{"S1", "pipeline 64", "ops/s"}, figure{"S4", "CPU of the primary", "µs/op"}, figure{"S10", "of what is allowed", "×"}
	measured := map[string]*values{ours: {}, memory: {}, durable: {}}
	for run, v := range []float64{500_000, 600_000, 450_000} {
		measured[ours].set(run, rate, v)
		measured[ours].set(run, cpu, 2.25)
		measured[ours].set(run, own, 0.5)
		measured[memory].set(run, rate, 400_000)
		measured[memory].set(run, cpu, 2.5)
	}
	measured[durable].set(1, rate, 200_000)
	targets := []target{least("S1", "pipeline 64", memory, 1.3), least("S1", "pipeline 64", durable, 2.2), most("S4", "CPU of the primary", memory, 0.8), most("S10", "of what is allowed", "", 1)}
	return &Report{
		Time: time.Date(2026, 11, 25, 23, 0, 0, 0, time.UTC), Command: "replctl bench", Machine: "Linux", Cores: 2, Shards: 2, Runs: 3, Seconds: 61.4,
		Rows: judge(systems, measured, targets), Failures: []string{"S1 run 1, D: the data differs"},
	}, systems
}

func TestReport(t *testing.T) {
	rep, systems := story()
	golden(t, "report.txt", rep.text(systems))
	j, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", string(j)+"\n")
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 0.123: "0.12", 1.3: "1.30", 9.994: "9.99", 9.996: "10.0", 42.04: "42.0", 356: "356", 356.7: "357", 9_994: "9994",
		9_996: "10.0k", 356_123: "356k", 1_230_000: "1.23M", 999_600: "1.00M", -2.5: "-2.50",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%g) = %q, want %q", v, got, want)
		}
	}
}

func TestParseInfo(t *testing.T) {
	got := parseInfo("# Replication\r\nrole:slave\r\nmaster_host:::1\r\n\r\nslave_repl_offset:42\r\n")
	if len(got) != 3 || got["role"] != "slave" || got["master_host"] != "::1" || got["slave_repl_offset"] != "42" {
		t.Errorf("%v", got)
	}
}

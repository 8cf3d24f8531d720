package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// benchReport is what of replctl bench's report the test looks at.
type benchReport struct {
	Rows []struct {
		Scenario, Figure string
		Ours             struct{ Runs []float64 }
		Peers            []struct {
			Peer  string
			Ratio *struct{ Runs []float64 }
		}
	}
	Failures []string
}

// TestBench: replctl bench measures a small version of every scenario, of ours and of redis-server where there is one, and
// leaves neither processes' directories nor anything else behind.
func TestBench(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "report.json")
	args := []string{"bench", "--quick", "--runs", "1", "--dir", dir, "--json", file}
	_, err := exec.LookPath("redis-server")
	if err == nil {
		args = append(args, "--peer", "redis-server")
	} else {
		t.Log("no redis-server: ours is measured alone")
	}
	status, stdout, stderr := command(t, 5*time.Minute, "replctl", args...)
	if status != 0 {
		t.Fatalf("status %d\n%s\n%s", status, stdout, stderr)
	}
	b, err2 := os.ReadFile(file)
	must(t, err2)
	var r benchReport
	must(t, json.Unmarshal(b, &r))
	seen := map[string]bool{}
	compared := map[string]bool{}
	for _, row := range r.Rows {
		seen[row.Scenario] = true
		if len(row.Ours.Runs) != 1 {
			t.Errorf("%s %s: %v, want one figure", row.Scenario, row.Figure, row.Ours.Runs)
		}
		for _, p := range row.Peers {
			if p.Ratio != nil && len(p.Ratio.Runs) == 1 && p.Ratio.Runs[0] > 0 {
				compared[row.Scenario] = true
			}
		}
	}
	for _, s := range benchScenarios {
		if !seen[s] {
			t.Errorf("%s was not measured:\n%s", s, stdout)
		}
		if err == nil && s != "S13" && !compared[s] {
			t.Errorf("%s was not compared:\n%s", s, stdout)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v (%v) are left in --dir", left, err)
	}
	if !strings.Contains(stdout, "ours") {
		t.Errorf("no table:\n%s", stdout)
	}
}

// TestBenchInterrupted: Ctrl-C in the middle of a load ends every process that the bench started, and removes its directory.
func TestBenchInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(filepath.Join(bin, "replctl"), "bench", "--scenario", "S3", "--runs", "1", "--duration", "10m", "--keys", "1000", "--dir", dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	must(t, spawn()(cmd))
	children := func() (pids []string) {
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		must(t, err)
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), dir) && strings.Contains(string(b), "--data-dir") {
				pids = append(pids, f)
			}
		}
		return pids
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, time.Minute, "a primary and two replicas run", func() error {
		if n := len(children()); n != 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	must(t, cmd.Process.Signal(os.Interrupt))
	select {
	case err := <-ended:
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "interrupted") {
			t.Errorf("%v, want status 1 and that it was interrupted:\n%s", err, stderr.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it did not end within 30s")
	}
	if left := children(); len(left) > 0 {
		t.Errorf("%v still run", left)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v (%v) are left in --dir", left, err)
	}
}

// benchScenarios are those that processes are measured in.
var benchScenarios = []string{"S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S13"}

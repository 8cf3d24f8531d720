package e2e

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStartStop: the ready line, the exit statuses, the lock, and a second SIGTERM.
func TestStartStop(t *testing.T) {
	t.Parallel()
	n := newPrimary(t, 3)
	n.launch()
	fields := n.proc.waitReady(20 * time.Second)
	wantEqual(t, "role", fields["role"], "primary")
	wantEqual(t, "listen", fields["listen"], n.addr)
	wantEqual(t, "shards", fields["shards"], "3")
	if !strings.HasPrefix(fields["replication"], n.replication()+"-") {
		t.Errorf("replication=%s, want %s-…", fields["replication"], n.replication())
	}

	second := newPrimary(t, 3)
	second.dir, second.name = n.dir, "second"
	second.launch()
	wantEqual(t, "exit status on a locked directory", second.proc.wait(10*time.Second), 1)
	must(t, second.proc.logged(n.dir))

	n.stop()
	n.start()
	n.stop()

	for name, args := range map[string][]string{
		"an unknown flag":     {"--no-such-flag"},
		"shards":              {"--shards", "257"},
		"a range past 65535":  {"--shards", "4", "--replication-port-base", "65533"},
		"an fsync policy":     {"--fsync", "sometimes"},
		"a config file":       {"--config", "/nonexistent/understudy.toml"},
		"a cap under a floor": {"--backlog-keep", "2GiB", "--backlog-disk", "1GiB"},
	} {
		status, out, errs := command(t, 10*time.Second, "primary", append([]string{"--data-dir", t.TempDir()}, args...)...)
		if status != 2 || out != "" || !strings.Contains(errs, args[len(args)-1]) && name != "a cap under a floor" {
			t.Errorf("%s: status %d, want 2 and the value\n%s%s", name, status, out, errs)
		}
	}
	status, _, errs := command(t, 10*time.Second, "primary", "--data-dir", t.TempDir(), "--shards", "4", "--replication-port-base", "65533")
	if status != 2 || !strings.Contains(errs, "65533-65536") {
		t.Errorf("a range past 65535: status %d, and the range is not named: %s", status, errs)
	}
	status, _, errs = command(t, 10*time.Second, "replica", "--data-dir", t.TempDir())
	if status != 2 || !strings.Contains(errs, "--primary") {
		t.Errorf("a replica without a primary: status %d: %s", status, errs)
	}
	for _, name := range []string{"primary", "replica", "replctl"} {
		if status, out, errs := command(t, 10*time.Second, name, "--version"); status != 0 || !strings.Contains(out, "understudy") && !strings.Contains(out, name) {
			t.Errorf("%s --version: status %d: %s%s", name, status, out, errs)
		}
	}
}

// TestSettings: flags over the environment over the file; unknown keys are errors.
func TestSettings(t *testing.T) {
	t.Parallel()
	n := newNode(t, "primary", "primary")
	n.base = freePorts(t, 4)
	file := n.logs + "/understudy.toml"
	must(t, os.WriteFile(file, []byte("shards = 2\nfsync = \"always\"\nreplication-port-base = "+strings.Split(n.replication(), ":")[1]+"\n"), 0o644))
	n.args = []string{"--config", file, "--shards", "3"}
	n.launch()
	fields := n.proc.waitReady(20 * time.Second)
	wantEqual(t, "shards", fields["shards"], "3")
	wantEqual(t, "fsync", n.mustStatus().Shards[0].Log.SyncPolicy, "always")
	n.stop()
	must(t, os.WriteFile(file, []byte("shrads = 2\n"), 0o644))
	n.launch()
	wantEqual(t, "exit status with an unknown key", n.proc.wait(10*time.Second), 2)
	must(t, n.proc.logged("shrads"))
}

// TestReplctl: status for people and for programs, with the worst shard first; verify finds a difference and says
// which key.
func TestReplctl(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	p.primary.fill("k", mib, 100)
	p.waitIdentical(10 * time.Second)
	status, out, errs := command(t, 10*time.Second, "replctl", "status", "--primary", p.primary.addr, "--replica", p.replica.addr)
	if status != 0 || !strings.Contains(out, "streaming") && !strings.Contains(out, "online") {
		t.Errorf("replctl status: %d\n%s%s", status, out, errs)
	}
	status, out, errs = command(t, 10*time.Second, "replctl", "status", "--json", "--primary", p.primary.addr, "--replica", p.replica.addr)
	if status != 0 || !json.Valid([]byte(out)) {
		t.Errorf("replctl status --json: %d\n%s%s", status, out, errs)
	}
	l := p.primary.startLoad(loadOptions{clients: 2, pause: time.Millisecond})
	l.waitAcked(500, 10*time.Second)
	status, out, errs = command(t, 30*time.Second, "replctl", "verify", "--primary", p.primary.addr, "--replica", p.replica.addr)
	if status != 0 {
		t.Errorf("replctl verify under writes: %d\n%s%s", status, out, errs)
	}
	l.stop()
	status, out, errs = command(t, 10*time.Second, "replctl", "log", "--check", p.primary.dir)
	if status != 0 {
		t.Errorf("replctl log --check of a running node: %d\n%s%s", status, out, errs)
	}
}

// TestVerifyUnrelated: two nodes that have nothing to do with each other are not found identical.
func TestVerifyUnrelated(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, setup{shards: 1}), newPair2(t)
	a.primary.set("same", "1")
	b.primary.set("same", "1")
	a.primary.set("only-here", "1")
	a.waitCaughtUp(5 * time.Second)
	status, out, errs := command(t, 30*time.Second, "replctl", "verify", "--wait", "3s", "--primary", a.primary.addr, "--replica", b.replica.addr)
	if status == 0 {
		t.Errorf("replctl verify found two unrelated nodes identical\n%s%s", out, errs)
	}
}

// newPair2 is a second pair of one test.
func newPair2(t *testing.T) *pair {
	p := &pair{t: t, shards: 1}
	p.primary = newPrimary(t, 1)
	p.primary.name, p.primary.dir = "primary-2", p.primary.dir+"-2"
	p.primary.start()
	p.replica = newReplica(t, "replica-2", p.primary.replication())
	p.replica.start()
	p.waitStreaming(20 * time.Second)
	return p
}

// TestDemo: the demo tells its story to the end and finds the mirror identical.
func TestDemo(t *testing.T) {
	t.Parallel()
	status, out, errs := command(t, 2*time.Minute, "demo", "--once", "--dir", t.TempDir())
	if status != 0 || !regexp.MustCompile(`identical:? +yes`).MatchString(out) {
		t.Errorf("demo --once: status %d\n%s\n%s", status, out, errs)
	}
}

// TestSecondSigterm: a second SIGTERM ends a process at once.
func TestSecondSigterm(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	p.primary.fill("k", 4*mib, 4096)
	began := time.Now()
	p.primary.proc.signal(syscall.SIGTERM)
	p.primary.proc.signal(syscall.SIGTERM)
	p.primary.proc.wait(5 * time.Second)
	t.Logf("ended after %s with status %d", time.Since(began).Round(time.Millisecond), p.primary.proc.cmd.ProcessState.ExitCode())
	p.primary.start()
	p.waitStreaming(15 * time.Second)
	p.waitIdentical(10 * time.Second)
}

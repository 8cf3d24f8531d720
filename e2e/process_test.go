package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// spawn starts processes from one thread that lives as long as the test binary, and asks the kernel to kill them when
// that thread dies: a test run that is itself killed leaves nothing behind.
var spawn = sync.OnceValue(func() func(*exec.Cmd) error {
	type request struct {
		cmd *exec.Cmd
		err chan error
	}
	requests := make(chan request)
	go func() {
		runtime.LockOSThread()
		for r := range requests {
			r.err <- r.cmd.Start()
		}
	}()
	return func(cmd *exec.Cmd) error {
		// A process group of its own: when the shell that began all this ends, the kernel continues the stopped processes
		// of its group, and a replica that a scenario has paused would go on.
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		r := request{cmd: cmd, err: make(chan error)}
		requests <- r
		return <-r.err
	}
})

// A process is one run of a built command.
type process struct {
	t      testing.TB
	name   string
	log    string // file with its standard error
	cmd    *exec.Cmd
	ready  chan map[string]string // the ready line's fields, once
	exited chan struct{}
	err    error // of Wait, once exited is closed
	stdout bytes.Buffer
}

// start runs a built command, through another one if wrap names it. Its standard error goes to a file beside its data; its standard output is read for the
// line that says it is ready.
func start(t testing.TB, name, logDir string, wrap []string, command string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, ready: make(chan map[string]string, 1), exited: make(chan struct{})}
	p.log = filepath.Join(logDir, name+".log")
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(t, err)
	defer log.Close()
	fmt.Fprintf(log, "--- %s %s\n", command, strings.Join(args, " "))
	words := append(append(append([]string(nil), wrap...), filepath.Join(bin, command)), args...)
	p.cmd = exec.Command(words[0], words[1:]...)
	p.cmd.Stderr = log
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "UNDERSTUDY_") {
			p.cmd.Env = append(p.cmd.Env, e)
		}
	}
	stdout, err := p.cmd.StdoutPipe()
	must(t, err)
	must(t, spawn()(p.cmd))
	go func() {
		lines := bufio.NewReader(stdout)
		for {
			line, err := lines.ReadString('\n')
			p.stdout.WriteString(line)
			if rest, ok := strings.CutPrefix(line, "ready "); ok {
				fields := map[string]string{}
				for _, f := range strings.Fields(rest) {
					k, v, _ := strings.Cut(f, "=")
					fields[k] = v
				}
				select {
				case p.ready <- fields:
				default:
				}
			}
			if err != nil {
				break
			}
		}
		io.Copy(io.Discard, lines) //nolint:errcheck // until it ends
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p
}

// waitReady waits for the ready line and returns its fields.
func (p *process) waitReady(within time.Duration) map[string]string {
	p.t.Helper()
	select {
	case fields := <-p.ready:
		return fields
	case <-p.exited:
		select {
		case fields := <-p.ready:
			return fields
		default:
		}
		p.t.Fatalf("%s ended before it was ready: %v\n%s", p.name, p.err, p.tail(60))
	case <-time.After(within):
		p.t.Fatalf("%s was not ready within %s\n%s", p.name, within, p.tail(60))
	}
	return nil
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("%s: signal %v: %v", p.name, s, err)
	}
}

// wait waits for the end and returns the exit status, -1 if a signal ended it.
func (p *process) wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(within):
		p.t.Fatalf("%s did not end within %s\n%s", p.name, within, p.tail(60))
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop asks for a clean stop, which must come within ten seconds and with status 0.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if status := p.wait(10 * time.Second); status != 0 {
		p.t.Fatalf("%s: a clean stop ended with status %d\n%s", p.name, status, p.tail(60))
	}
}

// kill is kill -9, and waits until the kernel has taken everything back.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait(10 * time.Second)
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// runs counts how often a process was started with this log.
func (p *process) runs(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile(p.log)
	must(t, err)
	return bytes.Count(b, []byte("\n--- ")) + 1
}

// tail gives the last lines of the process's standard error.
func (p *process) tail(lines int) string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "--- standard error of " + p.name + ":\n" + strings.Join(all, "\n")
}

// logged reports whether the process's standard error has the text.
func (p *process) logged(text string) error {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	return errorf(bytes.Contains(b, []byte(text)), "%s has not logged %q", p.name, text)
}

// rss is the process's resident memory that no file backs, in bytes: what a bound on buffers is about.
func (p *process) rss() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no RssAnon in /proc/%d/status", p.cmd.Process.Pid)
}

// command runs a built command to its end and returns its exit status and both outputs.
func command(t testing.TB, within time.Duration, name string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, name), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	must(t, spawn()(cmd))
	killer := time.AfterFunc(within, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	err := cmd.Wait()
	if !killer.Stop() {
		t.Fatalf("%s %s did not end within %s\n%s\n%s", name, strings.Join(args, " "), within, out.String(), errs.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

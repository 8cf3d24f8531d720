package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/understudy-kv/understudy/internal/server"
)

// childPrefix marks the hidden first argument with which the demo executes itself.
const childPrefix = "child-"

// runChild is a child's whole life: the program of that role, until its standard input ends. A demo that was killed
// cannot tell its children; the kernel closes their pipes for it.
func runChild(role string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// runChild starts this goroutine. It ends with standard input or with the process; nobody waits for it, since a read
	// of standard input cannot be interrupted.
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	if role == server.RolePrimary {
		return server.RunPrimary(ctx, args, stdout, stderr)
	}
	return server.RunReplica(ctx, args, stdout, stderr)
}

// process is a running child.
type process struct {
	role    string
	cmd     *exec.Cmd
	stdin   io.Closer
	logPath string
	exited  chan error // capacity 1
	ready   chan string
}

// launch starts this binary as a child and waits until it says that it is ready. Its log is added to logPath.
func launch(ctx context.Context, role, logPath string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{role: role, logPath: logPath, exited: make(chan error, 1), ready: make(chan string, 1)}
	p.cmd = exec.Command(self, append([]string{childPrefix + role}, args...)...)
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo alone, which then stops its children
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	// launch starts one goroutine a child. It owns the child's standard output and its exit status, ends when the child
	// does, and stop or kill waits for it.
	go func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			if strings.HasPrefix(s.Text(), "ready ") {
				p.ready <- s.Text()
			}
		}
		p.exited <- p.cmd.Wait()
	}()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	select {
	case <-p.ready:
		return p, nil
	case err := <-p.exited:
		return nil, fmt.Errorf("the %s ended before it was ready (%w); its log is %s", role, orEnded(err), logPath)
	case <-limit.C:
		err = fmt.Errorf("the %s was not ready after 30s; its log is %s", role, logPath)
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, p.kill())
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// kill is SIGKILL: the process has no chance to do anything more.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	<-p.exited
	p.stdin.Close()
	return err
}

// stop asks for a clean stop, and ends what does not stop.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	limit := time.NewTimer(12 * time.Second)
	defer limit.Stop()
	select {
	case err := <-p.exited:
		p.stdin.Close()
		if err != nil {
			return fmt.Errorf("the %s did not stop cleanly: %w; its log is %s", p.role, err, p.logPath)
		}
		return nil
	case <-limit.C:
		return errors.Join(fmt.Errorf("the %s did not stop within 12s; its log is %s", p.role, p.logPath), p.kill())
	}
}

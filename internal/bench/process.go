package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits of what may take how long.
const (
	startLimit = 60 * time.Second
	stopLimit  = 20 * time.Second
)

// process is a running child.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string
	lines  chan string   // of its standard output, the first few
	exited chan struct{} // closed when it has ended
	err    error         // of Wait, once exited is closed
}

// launch starts a program. Its standard error goes to a file in dir.
func launch(dir, name, program string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), lines: make(chan string, 16), exited: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- %s %s\n", program, strings.Join(args, " "))
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Stderr = log
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "UNDERSTUDY_") {
			p.cmd.Env = append(p.cmd.Env, e)
		}
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := spawn(p.cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	// launch starts one goroutine a child. It owns the child's standard output and its exit status, ends when the child does,
	// and kill waits for it.
	go func() {
		defer close(p.exited)
		r := bufio.NewReader(stdout)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				break
			}
			select {
			case p.lines <- strings.TrimSpace(line):
			default:
			}
		}
		_, _ = io.Copy(io.Discard, r)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// alive returns an error that tells of the process's end, if it has ended.
func (p *process) alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("the process %s has ended (%v); its log is %s", p.name, p.err, p.log)
	default:
		return nil
	}
}

// awaitReady waits for the line with which our programs say that they serve.
func (p *process) awaitReady(ctx context.Context) error {
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	for {
		select {
		case line := <-p.lines:
			if strings.HasPrefix(line, "ready ") {
				return nil
			}
		case <-p.exited:
			return p.alive()
		case <-limit.C:
			return fmt.Errorf("the process %s was not ready after %s; its log is %s", p.name, startLimit, p.log)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// kill ends the process at once and waits for its end. It may be called again.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-p.exited
	return err
}

// terminate asks for a clean end, and kills what does not obey.
func (p *process) terminate() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-p.exited:
		return nil
	case <-limit.C:
		return errors.Join(fmt.Errorf("the process %s did not stop within %s", p.name, stopLimit), p.kill())
	}
}

// rssAnon is the anonymous memory that the process holds: heap, stacks and what else is no file's.
func (p *process) rssAnon() (int64, error) { return p.procField("status", "RssAnon:", 1024) }

// written is what the process caused to be written to disk, in bytes. Pages that are deleted before they are written still
// count, as the kernel counts them when they become dirty.
func (p *process) written() (int64, error) { return p.procField("io", "write_bytes:", 1) }

// procField reads a number from a file of /proc/PID.
func (p *process) procField(file, field string, unit int64) (int64, error) {
	path := fmt.Sprintf("/proc/%d/%s", p.pid(), file)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %q: %w", path, line, err)
			}
			return n * unit, nil
		}
	}
	return 0, fmt.Errorf("%s: it has no %s", path, field)
}

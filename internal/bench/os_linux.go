package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supported is nil where everything that the bench needs is there.
var supported error

// spawn starts a child that the kernel kills when this process dies: the thread that starts it lives as long as the process,
// since the kernel watches that thread. A group of its own keeps Ctrl-C for the bench, which then ends its children.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r := spawning{cmd, make(chan error)}
	spawner() <- r
	return <-r.err
}

type spawning struct {
	cmd *exec.Cmd
	err chan error
}

var spawner = sync.OnceValue(func() chan spawning {
	requests := make(chan spawning)
	// The first spawn starts the one goroutine that starts children. It owns its thread and ends with the process; nobody waits for it.
	go startChildren(requests)
	return requests
})

func startChildren(requests <-chan spawning) {
	runtime.LockOSThread()
	for r := range requests {
		r.err <- r.cmd.Start()
	}
}

// cpu is what the process has used, all of its threads that ever were, in user and kernel mode.
func (p *process) cpu() (time.Duration, error) {
	var ts unix.Timespec
	const ofProcess = 2 // CPUCLOCK_SCHED of a whole process: what clock_getcpuclockid(3) makes
	if err := unix.ClockGettime(int32(^p.pid())<<3|ofProcess, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of %s: %w", p.name, err)
	}
	return time.Duration(ts.Nano()), nil
}

// settle writes out what the file system of dir has not written yet, so that one system's data is no burden for the next.
func settle(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", dir, err)
	}
	return nil
}

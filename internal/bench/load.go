package bench

import (
	"context"
	"encoding/csv"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/understudy-kv/understudy/internal/loadgen"
)

// loaded is what a load did, and what it cost.
type loaded struct {
	requests int64
	misses   int64
	whole    time.Duration // from the first request until every replica had applied everything
	cpu      []time.Duration
	all      time.Duration // the primary's, until it had nothing left to do; loadToRest's
	genCPU   time.Duration
	latency  loadgen.Histogram
}

// rate is requests a second, until every replica had everything.
func (l *loaded) rate() float64 { return float64(l.requests) / l.whole.Seconds() }

// micros is CPU time a request, in µs.
func (l *loaded) micros(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(max(l.requests, 1))
}

// replicaCPU is the mean over the replicas.
func (l *loaded) replicaCPU() time.Duration {
	if len(l.cpu) < 2 {
		return 0
	}
	var sum time.Duration
	for _, d := range l.cpu[1:] {
		sum += d
	}
	return sum / time.Duration(len(l.cpu)-1)
}

// config is the load that the options ask for.
func (o *Options) config(p *pair) loadgen.Config {
	return loadgen.Config{Addr: p.primary.addr, Conns: o.Conns, Threads: o.Threads, Keys: o.Keys, Duration: o.Duration, Seed: uint64(time.Now().UnixNano())}
}

// fill writes every key once, and waits for the replicas.
func (o *Options) fill(ctx context.Context, p *pair, keys uint64, value int) error {
	c := o.config(p)
	c.Order, c.Keys, c.Value, c.Pipeline, c.Duration = loadgen.Sequential, keys, value, 64, 0
	if _, err := loadgen.Run(ctx, c); err != nil {
		return err
	}
	return p.replicated(ctx)
}

// load puts the primary under load, once it is calm, and measures until every replica has applied everything.
func (o *Options) load(ctx context.Context, p *pair, c loadgen.Config) (*loaded, error) {
	if err := p.calm(ctx); err != nil {
		return nil, err
	}
	before, err := p.cpu()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	l := &loaded{}
	if o.Generator == genRedis {
		began, err = o.redisBenchmark(ctx, c, l)
	} else {
		var r *loadgen.Result
		if r, err = loadgen.Run(ctx, c); err == nil {
			l.requests, l.misses, l.genCPU, l.latency = r.Requests, r.Misses, r.CPU, r.Latency
		}
	}
	if err != nil {
		return nil, err
	}
	if err := p.replicated(ctx); err != nil {
		return nil, err
	}
	l.whole = time.Since(began)
	if l.cpu, err = p.cpu(); err != nil {
		return nil, err
	}
	for i := range l.cpu {
		l.cpu[i] -= before[i]
	}
	return l, nil
}

// loadToRest is load that begins when no node has anything left to do of what came before, flushes and compactions, and counts what the primary
// has left to do behind it.
func (o *Options) loadToRest(ctx context.Context, p *pair, c loadgen.Config) (*loaded, error) {
	if err := p.rested(ctx); err != nil {
		return nil, err
	}
	before, err := p.cpu()
	if err != nil {
		return nil, err
	}
	l, err := o.load(ctx, p, c)
	if err != nil {
		return nil, err
	}
	if err := p.rested(ctx); err != nil {
		return nil, err
	}
	after, err := p.cpu()
	if err != nil {
		return nil, err
	}
	l.all = after[0] - before[0]
	return l, nil
}

const (
	// A node rests when it has taken less than a twentieth of a processor for so long each of so many times in a row.
	restLook  = 500 * time.Millisecond
	restLooks = 5
)

// rested waits until every node rests.
func (p *pair) rested(ctx context.Context) error {
	last, err := p.cpu()
	if err != nil {
		return err
	}
	began, calm := time.Now(), 0
	return await(ctx, linkLimit, "nodes that rest", func() (bool, error) {
		d := time.Since(began)
		if d < restLook {
			return false, nil
		}
		now, err := p.cpu()
		if err != nil {
			return false, err
		}
		calm++
		for i := range now {
			if now[i]-last[i] > d/20 {
				calm = 0
			}
		}
		last, began = now, time.Now()
		return calm == restLooks, nil
	})
}

// cpu is what each node has used since it started, the primary first.
func (p *pair) cpu() ([]time.Duration, error) {
	list := make([]time.Duration, 1+len(p.replicas))
	for i, n := range p.nodes() {
		d, err := n.proc.cpu()
		if err != nil {
			return nil, err
		}
		list[i] = d
	}
	return list, nil
}

// redisBenchmark makes the load with the program of that name, as a check on our own. It counts requests and not time, so
// a short load of ours tells first how many will last about as long. It returns when it began.
func (o *Options) redisBenchmark(ctx context.Context, c loadgen.Config, l *loaded) (began time.Time, err error) {
	pilot := c
	pilot.Duration, pilot.Requests = 500*time.Millisecond, 0
	if c.Duration > 0 {
		pilot.Duration = min(c.Duration, pilot.Duration)
	}
	r, err := loadgen.Run(ctx, pilot)
	if err != nil {
		return began, err
	}
	rate := float64(r.Requests) / r.Elapsed.Seconds()
	n := c.Requests
	if n == 0 {
		n = max(int64(rate*c.Duration.Seconds()), int64(c.Conns*c.Pipeline))
	}
	test := "set"
	if c.Gets == 100 {
		test = "get"
	}
	_, port, _ := strings.Cut(c.Addr, ":")
	ctx, cancel := context.WithTimeout(ctx, time.Duration(20*float64(n)/rate*float64(time.Second))+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, genRedis, "-h", host, "-p", port, "-t", test, "-r", strconv.FormatUint(c.Keys, 10), "-d", strconv.Itoa(c.Value),
		"-c", strconv.Itoa(c.Conns), "-P", strconv.Itoa(c.Pipeline), "-n", strconv.FormatInt(n, 10), "--csv")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	began = time.Now()
	out, err := cmd.Output()
	if err != nil {
		return began, fmt.Errorf("%s: %w: %s", genRedis, err, out)
	}
	rows, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
	if err != nil || len(rows) != 2 {
		return began, fmt.Errorf("%s printed what is no table of one test: %q", genRedis, out)
	}
	l.requests = n
	l.genCPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return began, nil
}

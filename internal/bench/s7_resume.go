package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/understudy-kv/understudy/internal/faultproxy"
)

// The load under which S7's replica is away: what it misses in 5 s fits into Redis's backlog of 256 MiB.
const (
	resumeRate  = 20_000
	resumeValue = 1024
)

// resume is S7: the line to the replica is cut under load, and comes back.
func resume() scenario {
	return scenario{
		covers: []string{"S7"}, what: "resume after the replica was away under load", peers: []string{memory},
		targets: []target{most("S7", "until caught up", memory, 0.7), most("S7", "bytes sent over bytes missed", "", 1.02)},
		run: func(ctx context.Context, t *turn) error {
			if r, ok := t.system.(*redis); ok {
				roomy := *r
				roomy.flags = append(append([]string(nil), r.flags...), "--repl-backlog-size", "256mb")
				t.system = &roomy
			}
			return t.pair(ctx, 0, 0, func(p *pair) error { return t.resume(ctx, p) })
		},
	}
}

func (t *turn) resume(ctx context.Context, p *pair) (err error) {
	line, err := faultproxy.Start(faultproxy.Options{Target: net.JoinHostPort(host, strconv.Itoa(p.primary.base)), Ports: p.primary.row})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, line.Close()) }()
	_, port, err := net.SplitHostPort(line.Addr())
	if err != nil {
		return err
	}
	base, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	if _, err := p.join(ctx, base); err != nil {
		return err
	}
	if err := p.linked(ctx); err != nil {
		return err
	}
	if err := t.fill(ctx, p, t.Keys, resumeValue); err != nil {
		return err
	}
	if err := p.calm(ctx); err != nil {
		return err
	}
	before, err := p.fullSyncs()
	if err != nil {
		return err
	}
	c := t.config(p)
	c.Value, c.Rate, c.Duration = resumeValue, resumeRate, 0
	var took time.Duration
	var left flow
	var missed float64 // offsets
	err = beside(ctx, c, func(ctx context.Context) (err error) {
		if err := pause(ctx, t.Duration/5); err != nil {
			return err
		}
		if err := line.Down(); err != nil {
			return err
		}
		if err := pause(ctx, t.Away); err != nil {
			return err
		}
		if left, err = p.flow(line); err != nil {
			return err
		}
		began := time.Now()
		if err := line.Up(); err != nil {
			return err
		}
		if err := p.replicated(ctx); err != nil {
			return err
		}
		took = time.Since(began)
		missed = left.primary - left.replica
		return nil
	}, nil)
	if err != nil {
		return err
	}
	if err := p.replicated(ctx); err != nil {
		return err
	}
	end, err := p.flow(line)
	if err != nil {
		return err
	}
	after, err := p.fullSyncs()
	if err != nil {
		return err
	}
	if missed <= 0 || after != before {
		return fmt.Errorf("the replica missed %.0f and had %d full syncs, want some and none: the run counts for nothing", missed, after-before)
	}
	perOffset := end.perOffset(left)
	twice := float64(end.line-left.line) - (end.primary-left.replica)*perOffset
	t.record("S7", "until caught up", "s", took.Seconds())
	t.record("S7", "missed", "MiB", missed*perOffset/(1<<20))
	t.record("S7", "bytes sent over bytes missed", "×", 1+twice/(missed*perOffset))
	return p.verify(ctx, t.Keys, resumeValue)
}

// flow is how far primary and replica are, and what has passed between them.
type flow struct {
	primary, replica float64 // offsets
	line             uint64  // bytes from the primary that the line has delivered
	bytes, mutations uint64  // of ours: what the replica received in streams
}

// perOffset is how many bytes of the stream one offset is: one of Redis's, a mutation of ours.
func (f flow) perOffset(since flow) float64 {
	if f.mutations == since.mutations {
		return 1
	}
	return float64(f.bytes-since.bytes) / float64(f.mutations-since.mutations)
}

func (p *pair) flow(line *faultproxy.Proxy) (f flow, err error) {
	f.line = line.Bytes(faultproxy.ToClient)
	if f.replica, err = p.replicas[0].offset("slave_repl_offset"); err != nil {
		return f, err
	}
	if f.primary, err = p.primary.offset("master_repl_offset"); err != nil {
		return f, err
	}
	if _, ok := p.system.(*understudy); !ok {
		return f, nil
	}
	n, err := p.replicas[0].conn.Status()
	for _, sh := range n.Shards {
		if sh.Link != nil {
			f.bytes += sh.Link.Bytes
			f.mutations += sh.Link.Mutations
		}
	}
	return f, err
}

// offset reads an offset from INFO.
func (n *node) offset(field string) (float64, error) {
	f, err := n.info("replication")
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseFloat(f[field], 64)
	if err != nil {
		return 0, fmt.Errorf("%s: INFO's %s: %w", n.addr, field, err)
	}
	return v, nil
}

// fullSyncs is how many full syncs the primary has served.
func (p *pair) fullSyncs() (int64, error) {
	f, err := p.primary.info("stats")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(f["sync_full"], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: INFO's sync_full: %w", p.primary.addr, err)
	}
	return n, nil
}

// pause waits for a time in which something else happens.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

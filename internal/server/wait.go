package server

import (
	"context"
	"time"

	"github.com/understudy-kv/understudy/internal/resp"
)

const (
	errWaitReplica    = "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated."
	errWaitAOFReplica = "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and are not propagated."
)

// timeout reads a time-out in milliseconds; 0 means for ever. The texts are Redis's.
func (c *call) timeout(i int) (time.Duration, string) {
	n, ok := resp.ParseInt(c.args[i])
	switch {
	case !ok || n > int64(1<<63-1)/int64(time.Millisecond):
		return 0, "ERR timeout is not an integer or out of range"
	case n < 0:
		return 0, "ERR timeout is negative"
	}
	return time.Duration(n) * time.Millisecond, ""
}

// wait is WAIT numreplicas timeout: the replicas that have applied this connection's writes.
func wait(c *call) {
	if c.s.backend.Role() == RoleReplica {
		c.w.Error(errWaitReplica)
		return
	}
	want, ok := resp.ParseInt(c.args[1])
	if !ok {
		c.w.Error(errNotInteger)
		return
	}
	limit, text := c.timeout(2)
	if text != "" {
		c.w.Error(text)
		return
	}
	c.w.Int(int64(c.await(int(want), AckApplied, limit)))
}

// waitAOF is Redis 7.2's WAITAOF numlocal numreplicas timeout: whether this connection's writes survive power loss here,
// and on how many replicas they do.
func waitAOF(c *call) {
	if c.s.backend.Role() == RoleReplica {
		c.w.Error(errWaitAOFReplica)
		return
	}
	local, ok := resp.ParseInt(c.args[1])
	if !ok {
		c.w.Error(errNotInteger)
		return
	}
	if local < 0 || local > 1 {
		c.w.Error("ERR value is out of range, must between 0 and 1")
		return
	}
	want, ok := resp.ParseInt(c.args[2])
	switch {
	case !ok:
		c.w.Error(errNotInteger)
		return
	case want < 0:
		c.w.Error("ERR value is out of range, must be positive")
		return
	}
	limit, text := c.timeout(3)
	if text != "" {
		c.w.Error(text)
		return
	}
	begun := time.Now()
	durable, err := c.durable(local > 0 && !c.session.InExec())
	if err != nil {
		c.w.Error("MISCONF the log cannot be synced: " + err.Error() + ". Reads go on; mend the cause (see the log) and restart the process.")
		return
	}
	if limit > 0 { // what is left; 0 would be for ever
		limit = max(limit-time.Since(begun), time.Nanosecond)
	}
	n := c.await(int(want), AckDurable, limit)
	if local == 0 { // it may have become so meanwhile
		if durable, err = c.durable(false); err != nil {
			durable = false
		}
	}
	c.w.Array(2)
	if durable {
		c.w.Int(1)
	} else {
		c.w.Int(0)
	}
	c.w.Int(int64(n))
}

// durable reports whether the connection's writes survive power loss here; with sync it makes that so.
func (c *call) durable(sync bool) (bool, error) {
	shards := c.s.ks.Shards()
	for id, at := range c.session.Written() {
		switch {
		case at.IsZero():
			continue
		case id >= len(shards) || look(shards[id], at) != reached:
			return false, nil
		case shards[id].Durable() >= at.Offset:
			continue
		}
		if !sync {
			return false, nil
		}
		if err := shards[id].Log().Sync(); err != nil {
			return false, err
		}
	}
	return true, nil
}

// await waits until want replicas have acked what the connection has written, the time is up, or the connection ends.
// The replies before it are sent first. Within a transaction it only looks. What was written in a generation that has
// ended before, on another node's word, is lost: then no ack counts.
func (c *call) await(want int, level AckLevel, limit time.Duration) int {
	written, ok := c.written()
	if !ok {
		return 0
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	n := c.s.backend.Wait(ended, written, want, level)
	if n >= want || c.session.InExec() || !c.sendFirst() {
		return n
	}
	_ = c.whileConnected(limit, func(ctx context.Context) error {
		n = c.s.backend.Wait(ctx, written, want, level)
		return nil
	})
	if _, ok := c.written(); !ok {
		return 0 // the role has changed meanwhile
	}
	return n
}

// written is, by shard, the offset behind this connection's last write, and whether all of its writes are still part of
// the node's history.
func (c *call) written() ([]uint64, bool) {
	shards := c.s.ks.Shards()
	at := c.session.Written()
	offsets := make([]uint64, len(at))
	for id, p := range at {
		if p.IsZero() {
			continue
		}
		if id >= len(shards) || look(shards[id], p) != reached {
			return nil, false
		}
		offsets[id] = p.Offset
	}
	return offsets, true
}

// watch cancels when the connection has ended or the server stops. It looks once a second: nobody reads from the
// connection meanwhile.
func (c *conn) watch(ctx context.Context, cancel func()) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.s.quit:
			cancel()
			return
		case <-t.C:
			if c.closed.Load() || hungUp(c.nc) {
				cancel()
				return
			}
		}
	}
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/loadgen"
	"github.com/understudy-kv/understudy/internal/resp"
)

// linkLimit is how long replicas may take to be in step, full syncs included.
const linkLimit = 10 * time.Minute

// pair is a primary and its replicas.
type pair struct {
	system   system
	dir      string
	shards   int
	primary  *node
	replicas []*node
}

// open starts a primary and its replicas, and waits until every link is up. What it started is in the pair, whether or not
// it succeeds: end ends it.
func open(ctx context.Context, s system, dir string, replicas, shards int) (*pair, error) {
	p := &pair{system: s, dir: dir, shards: shards}
	n, err := s.primary(dir, shards)
	if err != nil {
		return p, err
	}
	p.primary = n
	if err := n.start(ctx); err != nil {
		return p, err
	}
	for range replicas {
		if _, err := p.join(ctx, n.base); err != nil {
			return p, err
		}
	}
	return p, p.linked(ctx)
}

// join starts one more replica, of what serves replicas from port base on.
func (p *pair) join(ctx context.Context, base int) (*node, error) {
	n, err := p.system.replica(p.dir, "replica-"+strconv.Itoa(len(p.replicas)+1), base, p.shards)
	if err != nil {
		return nil, err
	}
	p.replicas = append(p.replicas, n)
	return n, n.start(ctx)
}

// end ends every process. It may be called once.
func (p *pair) end() error {
	var errs []error
	for _, n := range p.nodes() {
		if n.profile {
			errs = append(errs, n.stop())
		}
		errs = append(errs, n.kill())
		if n.release != nil {
			errs = append(errs, n.release())
		}
	}
	return errors.Join(errs...)
}

func (p *pair) nodes() []*node {
	if p.primary == nil {
		return nil
	}
	return append([]*node{p.primary}, p.replicas...)
}

// linked waits until every replica says that its link is up.
func (p *pair) linked(ctx context.Context) error {
	for _, n := range p.replicas {
		err := await(ctx, linkLimit, n.name+" is linked to its primary", func() (bool, error) {
			if err := n.proc.alive(); err != nil {
				return false, err
			}
			f, err := n.info("replication")
			return f["master_link_status"] == "up", err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// replicated waits until every replica has applied what the primary had when it was called. Both systems tell offsets in
// INFO: Redis that of its stream, ours the sum of the shards' offsets, which is equal only if every shard's is.
func (p *pair) replicated(ctx context.Context) error {
	f, err := p.primary.info("replication")
	if err != nil {
		return err
	}
	want, err := strconv.ParseInt(f["master_repl_offset"], 10, 64)
	if err != nil {
		return fmt.Errorf("%s: INFO has no master_repl_offset: %w", p.primary.addr, err)
	}
	for _, n := range p.replicas {
		err := await(ctx, linkLimit, n.name+" has applied everything", func() (bool, error) {
			if err := n.proc.alive(); err != nil {
				return false, err
			}
			f, err := n.info("replication")
			if err != nil || f["master_link_status"] != "up" {
				return false, err
			}
			have, err := strconv.ParseInt(f["slave_repl_offset"], 10, 64)
			return have >= want, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// calm waits until nothing runs in the background that an earlier load began, and what it left has been written out. Redis
// rewrites its AOF first: it would whenever the AOF has doubled, and that lasts for seconds in which its writes hardly move. So
// it has the most room before it does again, and a short load measures its writes.
func (p *pair) calm(ctx context.Context) error {
	if err := p.atRest(ctx); err != nil {
		return err
	}
	if r, ok := p.system.(*redis); ok && r.label == durable {
		for _, n := range p.nodes() {
			if _, err := n.conn.Do("BGREWRITEAOF"); err != nil {
				return err
			}
		}
		if err := p.atRest(ctx); err != nil {
			return err
		}
	}
	return settle(p.dir)
}

// atRest waits until no node has a child process of Redis's kind.
func (p *pair) atRest(ctx context.Context) error {
	for _, n := range p.nodes() {
		err := await(ctx, linkLimit, n.name+" has no background work", func() (bool, error) {
			f, err := n.info("persistence")
			for _, field := range []string{"aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress"} {
				if v := f[field]; v != "" && v != "0" {
					return false, err
				}
			}
			return true, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// samples are how many keys are compared one by one.
const samples = 500

// verify proves that every node holds the data: so many keys, and samples of them that are the same everywhere and as long
// as they should be. Nothing may be written meanwhile.
func (p *pair) verify(ctx context.Context, keys uint64, value int) error {
	if err := p.replicated(ctx); err != nil {
		return err
	}
	picked := make([]string, samples)
	for i := range picked {
		picked[i] = loadgen.Key(rand.Uint64N(keys))
	}
	var first []string
	for _, n := range p.nodes() {
		size, err := n.number("DBSIZE")
		if err != nil {
			return err
		}
		if size != int64(keys) {
			return fmt.Errorf("%s has %d keys, want %d: the run counts for nothing", n.name, size, keys)
		}
		values, err := get(n.conn, picked)
		if err != nil {
			return err
		}
		for i, v := range values {
			if len(v) != value {
				return fmt.Errorf("%s: %s has a value of %d bytes, want %d: the run counts for nothing", n.name, picked[i], len(v), value)
			}
			if first != nil && v != first[i] {
				return fmt.Errorf("%s differs between %s and %s: the run counts for nothing", picked[i], p.primary.name, n.name)
			}
		}
		if first == nil {
			first = values
		}
	}
	return ctx.Err()
}

func get(c *client.Conn, keys []string) ([]string, error) {
	for _, k := range keys {
		c.Queue("GET", k)
	}
	values := make([]string, len(keys))
	err := c.Flush(func(i int, v resp.Value) error {
		values[i] = v.Str
		return v.Err()
	})
	return values, err
}

// profileName is where a node's CPU profile goes.
func profileName(dir, scenario string, run int, node string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, fmt.Sprintf("%s-run%d-%s.pprof", scenario, run, node))
}

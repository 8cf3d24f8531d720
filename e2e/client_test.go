package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
)

// TestGoRedis: go-redis works unmodified, with its pipelines, transactions and scans, in both protocols.
func TestGoRedis(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{shards: 3})
	ctx := context.Background()
	for _, protocol := range []int{2, 3} {
		c := redis.NewClient(&redis.Options{Addr: p.primary.addr, Protocol: protocol, ClientName: "smoke"})
		defer c.Close()
		must(t, c.FlushAll(ctx).Err())
		must(t, c.Set(ctx, "a", "1", 0).Err())
		n, err := c.IncrBy(ctx, "a", 41).Result()
		must(t, err)
		wantEqual(t, "INCRBY", n, 42)
		if err := c.Get(ctx, "none").Err(); err != redis.Nil {
			t.Errorf("GET of a key that is not there: %v", err)
		}
		must(t, c.Set(ctx, "ttl", "x", time.Hour).Err())
		d, err := c.TTL(ctx, "ttl").Result()
		must(t, err)
		if d < 59*time.Minute || d > time.Hour {
			t.Errorf("TTL %s", d)
		}
		must(t, c.MSet(ctx, "m1", 1, "m2", 2, "m3", 3).Err())
		values, err := c.MGet(ctx, "m1", "none", "m3").Result()
		must(t, err)
		wantEqual(t, "MGET", fmt.Sprint(values), "[1 <nil> 3]")
		_, err = c.TxPipelined(ctx, func(tx redis.Pipeliner) error {
			tx.Incr(ctx, "{t}1")
			tx.Incr(ctx, "{t}2")
			return nil
		})
		must(t, err)
		must(t, c.Watch(ctx, func(tx *redis.Tx) error {
			_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Set(ctx, "{t}1", "w", 0); return nil })
			return err
		}, "{t}1"))
		err = c.Watch(ctx, func(tx *redis.Tx) error {
			must(t, c.Set(ctx, "{t}1", "meanwhile", 0).Err())
			_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Set(ctx, "{t}1", "late", 0); return nil })
			return err
		}, "{t}1")
		if !errors.Is(err, redis.TxFailedErr) {
			t.Errorf("EXEC of a watched key that changed: %v", err)
		}
		found := 0
		for it := c.Scan(ctx, 0, "m*", 2).Iterator(); it.Next(ctx); {
			found++
		}
		wantEqual(t, "keys found by SCAN", found, 3)
		waited, err := c.Wait(ctx, 1, 5*time.Second).Result()
		must(t, err)
		wantEqual(t, "WAIT", waited, 1)
		r := redis.NewClient(&redis.Options{Addr: p.replica.addr, Protocol: protocol})
		defer r.Close()
		wantEqual(t, "the replica after WAIT", r.Get(ctx, "{t}1").Val(), "meanwhile")
		if err := r.Set(ctx, "a", "x", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "READONLY ") {
			t.Errorf("a write to the replica: %v, want -READONLY", err)
		}
	}
	p.waitIdentical(10 * time.Second)
}

// TestWaitAOF: WAITAOF counts what would survive power loss here and there (pitfall 21: also when nothing follows).
func TestWaitAOF(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{primary: []string{"--fsync", "always"}, replica: []string{"--fsync", "always"}})
	ctx := context.Background()
	c := p.primary.rdb.Conn()
	defer c.Close()
	for i := range 5 {
		must(t, c.Set(ctx, fmt.Sprint("k", i), "v", 0).Err())
		began := time.Now()
		got, err := c.Do(ctx, "WAITAOF", 1, 1, 5000).Slice()
		must(t, err)
		wantEqual(t, "WAITAOF", fmt.Sprint(got), "[1 1]")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("WAITAOF took %s", took)
		}
	}
	p.replica.kill()
	must(t, c.Set(ctx, "alone", "v", 0).Err())
	got, err := c.Do(ctx, "WAITAOF", 1, 1, 300).Slice()
	must(t, err)
	wantEqual(t, "WAITAOF without the replica", fmt.Sprint(got), "[1 0]")
}

// cli runs redis-cli against a node.
func cli(t *testing.T, n *node, stdin string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Skip("redis-cli is not installed; .ci/run installs it where it may")
	}
	host, port, _ := strings.Cut(n.addr, ":")
	cmd := exec.Command(path, append([]string{"-h", host, "-p", port}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestRedisCLI: redis-cli works unmodified: single commands, a session on its standard input, --scan, --pipe, RESP3.
func TestRedisCLI(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	wantEqual(t, "PING", cli(t, p.primary, "", "PING"), "PONG")
	wantEqual(t, "SET", cli(t, p.primary, "", "SET", "a key", "a value"), "OK")
	wantEqual(t, "a session", cli(t, p.primary, "INCR n\nINCR n\nGET \"a key\"\nNOSUCH\n"), "1\n2\na value\nERR unknown command 'NOSUCH', with args beginning with:")
	wantEqual(t, "RESP3", cli(t, p.primary, "", "-3", "GET", "a key"), "a value")
	wantEqual(t, "--scan", cli(t, p.primary, "", "--scan", "--pattern", "a*"), "a key")
	pipe := cli(t, p.primary, strings.Repeat("*3\r\n$3\r\nSET\r\n$1\r\np\r\n$1\r\nx\r\n", 1000), "--pipe")
	if !strings.Contains(pipe, "errors: 0, replies: 1000") {
		t.Errorf("--pipe: %s", pipe)
	}
	role := cli(t, p.replica, "", "ROLE")
	if !strings.HasPrefix(role, "slave\n127.0.0.1\n") || !strings.Contains(role, "connected") {
		t.Errorf("ROLE of the replica: %q", role)
	}
	info := cli(t, p.primary, "", "INFO", "replication")
	for _, want := range []string{"role:master", "connected_slaves:1", "slave0:ip=127.0.0.1", "state=online", "master_repl_offset:"} {
		if !strings.Contains(info, want) {
			t.Errorf("INFO replication has no %q:\n%s", want, info)
		}
	}
	info = cli(t, p.replica, "", "INFO", "replication")
	for _, want := range []string{"role:slave", "master_link_status:up", "master_sync_in_progress:0", "slave_repl_offset:", "slave_read_only:1"} {
		if !strings.Contains(info, want) {
			t.Errorf("the replica's INFO replication has no %q:\n%s", want, info)
		}
	}
	p.waitIdentical(10 * time.Second)
}

// TestRedisBenchmark: redis-benchmark runs its string tests against a primary.
func TestRedisBenchmark(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("redis-benchmark")
	if err != nil {
		t.Skip("redis-benchmark is not installed; .ci/run installs it where it may")
	}
	n := newPrimary(t, 2).start()
	host, port, _ := strings.Cut(n.addr, ":")
	out, err := exec.Command(path, "-h", host, "-p", port, "-n", "5000", "-P", "16", "-r", "1000", "-t", "ping,set,get,incr,mset", "-q").CombinedOutput()
	if err != nil || bytes.Contains(bytes.ToLower(out), []byte("error")) || !bytes.Contains(out, []byte("SET:")) {
		t.Errorf("redis-benchmark: %v\n%s", err, out)
	}
}

// TestDifferential sends the same random commands of every kind, transactions among them, to a real redis-server and to a
// primary, over sockets and with both protocols, and compares every reply. The keyspace is then mirrored.
func TestDifferential(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{shards: 3})
	addr := commandtest.StartRedis(t, "--databases", "1")
	count := 3000
	if *long {
		count = 100_000
	}
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprint("RESP", protocol), func(t *testing.T) {
			theirs, ours := commandtest.Dial(t, addr, protocol), commandtest.Dial(t, p.primary.addr, protocol)
			gen := commandtest.NewGenerator(*seed)
			r := rand.New(rand.NewPCG(*seed, 1))
			t.Logf("-run TestDifferential -seed %d", *seed)
			var history []string
			queued := 0 // commands since MULTI
			open := false
			send := func(args [][]byte) {
				t.Helper()
				history = append(history, commandtest.Format(args))
				want, got := theirs.Send(args), ours.Send(args)
				if !commandtest.Same(args, want, got) {
					t.Fatalf("seed %d, the last commands:\n%s\nredis: %q\n ours: %q", *seed, strings.Join(history[max(0, len(history)-20):], "\n"), want, got)
				}
			}
			words := func(s ...string) (args [][]byte) {
				for _, w := range s {
					args = append(args, []byte(w))
				}
				return args
			}
			send(words("FLUSHALL"))
			for range count {
				args := gen.Next()
				timed := len(args[0]) > 0 && strings.Contains(strings.ToLower(string(args[0])), "ttl") || strings.HasSuffix(strings.ToLower(string(args[0])), "expiretime")
				switch {
				case open && (queued > 5 || r.IntN(5) == 0):
					send(words([]string{"EXEC", "EXEC", "EXEC", "DISCARD"}[r.IntN(4)]))
					open = false
				case !open && r.IntN(20) == 0:
					if r.IntN(3) == 0 {
						send(words("WATCH", gen.Keys[r.IntN(len(gen.Keys))]))
					}
					send(words("MULTI"))
					open, queued = true, 0
				case open && timed: // Its reply would hide in EXEC's, where Same does not allow for time.
				default:
					send(args)
					queued++
				}
				if r.IntN(200) == 0 && !open {
					// Redis counts a key that has expired until it deletes it, which it does at the latest when it is asked for it.
					send(words(append([]string{"EXISTS"}, gen.Keys...)...))
					send(words("DBSIZE"))
				}
			}
			if open {
				send(words("EXEC"))
			}
		})
	}
	p.waitIdentical(20 * time.Second)
}

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/understudy-kv/understudy/internal/status"
)

func linkText(l *status.Link) string {
	if l == nil {
		return "no link"
	}
	return fmt.Sprintf("link %s, received %d, applied %d, last resync %q, last refusal %q, last error %q",
		l.State, l.Received, l.Applied, l.LastResync, l.LastRefusal, l.LastError)
}

// identical compares two nodes as an operator would, with replctl verify, and as a client would, key by key.
func identical(t testing.TB, primary, replica *node) {
	t.Helper()
	status, stdout, stderr := command(t, time.Minute, "replctl", "verify", "--primary", primary.addr, "--replica", replica.addr)
	if status != 0 {
		t.Errorf("replctl verify: status %d\n%s\n%s", status, stdout, stderr)
	}
	a, b := keyspace(t, primary), keyspace(t, replica)
	differ := 0
	for k, v := range a {
		if b[k] != v {
			if differ++; differ <= 10 {
				t.Errorf("key %q: %.100q at the primary, %.100q at the replica", k, v, b[k])
			}
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			if differ++; differ <= 10 {
				t.Errorf("key %q: only the replica has it", k)
			}
		}
	}
	if differ > 0 {
		t.Fatalf("%d of %d and %d keys differ", differ, len(a), len(b))
	}
}

// keyspace reads everything that a client can read: values with their deadlines, by SCAN.
func keyspace(t testing.TB, n *node) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all := map[string]string{}
	var cursor uint64
	for {
		keys, next, err := n.rdb.Scan(ctx, cursor, "", 1000).Result()
		if err != nil {
			t.Fatalf("%s: SCAN: %v", n.name, err)
		}
		pipe := n.rdb.Pipeline()
		values := make([]*redis.StringCmd, len(keys))
		deadlines := make([]*redis.Cmd, len(keys))
		for i, k := range keys {
			values[i], deadlines[i] = pipe.Get(ctx, k), pipe.Do(ctx, "PEXPIRETIME", k)
		}
		if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
			t.Fatalf("%s: reading %d keys: %v", n.name, len(keys), err)
		}
		for i, k := range keys {
			if values[i].Err() == redis.Nil {
				continue // Gone between SCAN and GET: its deadline passed.
			}
			all[k] = fmt.Sprint(values[i].Val(), " until ", deadlines[i].Val())
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	if size, err := n.rdb.DBSize(ctx).Result(); err != nil || size < int64(len(all)) {
		t.Errorf("%s: DBSIZE %d, %v, but SCAN found %d keys", n.name, size, err, len(all))
	}
	return all
}

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// limit is the largest value, 512 MiB.
const limit = 512 * mib

// TestValueSizes: values of 1 B up to the limit pass and are mirrored, past every buffer, slab and budget on the way
// (pitfall 29); limit+1 gets an error at the client, and neither wedges anything. The short suite goes up to 64 MiB.
func TestValueSizes(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{
		shards:  1,
		primary: []string{"--backlog-memory", "2MiB", "--memory", "64MiB"},
		replica: []string{"--inbox-bytes", "1MiB", "--backlog-memory", "1MiB", "--memory", "64MiB"},
	})
	sizes := []int{0, 1, 127, 128, 4095, 4096, 65535, 65536, 1<<20 - 1, 1 << 20, 2*mib - 1, 2 * mib, 2*mib + 1, 5 * mib, 64 * mib}
	if *long {
		sizes = append(sizes, limit-1, limit)
	}
	before := p.marks()
	for _, size := range sizes {
		key, began := fmt.Sprint("size:", size), time.Now()
		write(t, p.primary, key, size)
		eventually(t, 4*time.Minute, fmt.Sprintf("a value of %d bytes arrives", size), func() error {
			if err := caughtUp(p.primary, p.replica); err != nil {
				return err // Only then: to read half a gigabyte takes its time.
			}
			n, err := patient(p.replica).StrLen(context.Background(), key).Result()
			return errorf(err == nil && n == int64(size), "STRLEN %d, %v", n, err)
		})
		if size > mib {
			ctx := context.Background()
			if size <= 64*mib { // The largest effect that a small command has: all of the value again.
				must(t, patient(p.primary).SetRange(ctx, key, int64(size)-1, "!").Err())
			}
			must(t, patient(p.primary).Del(ctx, key).Err())
		}
		t.Logf("%d bytes: %s", size, time.Since(began).Round(time.Millisecond))
		p.mirror(2 * time.Minute)
	}
	tooLarge(t, p.primary, limit+1)
	ctx := context.Background()
	must(t, p.primary.rdb.Set(ctx, strings.Repeat("k", 64<<10), "x", 0).Err())
	if err := p.primary.rdb.Set(ctx, strings.Repeat("k", 64<<10+1), "x", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "ERR") {
		t.Errorf("a key of 64 KiB and a byte: %v, want -ERR", err)
	}
	if err := p.primary.rdb.SetRange(ctx, "far", limit, "x").Err(); err == nil || !strings.HasPrefix(err.Error(), "ERR") {
		t.Errorf("SETRANGE past the limit: %v, want -ERR", err)
	}
	p.mirror(10 * time.Second)
	p.waitIdentical(20 * time.Second)
	after := p.marks()
	wantEqual(t, "resumes", after.replica.resumes, before.replica.resumes)
	wantEqual(t, "full syncs", after.replica.allFullSyncs(), before.replica.allFullSyncs())
}

// patient is the node's client with two minutes for an answer.
func patient(n *node) *redis.Client { return n.rdb.WithTimeout(2 * time.Minute) }

// write sets a key to so many bytes without holding them all.
func write(t *testing.T, n *node, key string, size int) {
	t.Helper()
	c, err := net.Dial("tcp", n.addr)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(4*time.Minute)))
	w := bufio.NewWriterSize(c, 1<<16)
	fmt.Fprintf(w, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n", len(key), key, size)
	for sent := 0; sent < size; {
		part := min(size-sent, len(loadPadding))
		_, err := w.WriteString(loadPadding[:part])
		must(t, err)
		sent += part
	}
	fmt.Fprint(w, "\r\n")
	must(t, w.Flush())
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || line != "+OK\r\n" {
		t.Fatalf("a value of %d bytes: %q, %v", size, line, err)
	}
}

// tooLarge claims a bulk string of a size past the limit. Redis answers before it has read any of it, and closes.
func tooLarge(t *testing.T, n *node, size int) {
	t.Helper()
	c, err := net.Dial("tcp", n.addr)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	fmt.Fprintf(c, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n", size)
	reply, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(reply), "-ERR ") {
		t.Errorf("a value of %d bytes: %q, %v, want -ERR and the end", size, reply, err)
	}
}

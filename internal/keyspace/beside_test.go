package keyspace_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/keyspace/kstest"
	"github.com/understudy-kv/understudy/internal/shard"
)

// Reads that take the short way see what their own pipeline wrote before them, reply in its order, and count.
func TestReadsBesideWrites(t *testing.T) {
	k := open(t, 2, keyspace.Options{})
	s := k.NewSession(hook{})
	defer s.Close()
	// a and b lie on different shards.
	a, b := keyOn(0, 2, 0), keyOn(1, 2, 0)
	got := run(t, s, "GET "+a, "SET "+a+" 1", "GET "+a, "GET "+b, "PING", "GET "+a, "SET "+b+" 2", "GET "+b, "GET "+a, "STRLEN "+b)
	want := "$-1|+OK|$1|1|$-1|+PONG|$1|1|+OK|$1|2|$1|1|:1|"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got, want := run(t, s, "GET "+a, "APPEND "+a+" 1", "INCR "+a, "GETRANGE "+a+" 0 0", "TTL "+a, "TTL "+b), "$1|1|:2|:12|$1|1|:-1|:-1|"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if hits, misses := k.Lookups(); hits < 8 || misses != 2 {
		t.Errorf("%d hits and %d misses, want 8 or more, and 2", hits, misses)
	}
}

// A full sync replaces the engine again and again under sessions that read beside it: nothing that was closed is read,
// nobody sees an error, and nobody sees older data than before.
func TestReadsBesideASwitch(t *testing.T) {
	const rounds = 12
	fs := vfs.NewMem()
	source := kstest.Shards(t, 1, fs, func(o *shard.Options) { o.Dir = "source" })
	primary := keyspace.New(keyspace.Options{})
	primary.SetShards(source)
	writer := primary.NewSession(nil)
	defer writer.Close()
	write := func(i int) string {
		if got := run(t, writer, fmt.Sprint("SET k ", i)); got != "+OK|" {
			t.Fatal(got)
		}
		dir := fmt.Sprint("staged-", i)
		at, err := source[0].Checkpoint(dir)
		if err != nil {
			t.Fatal(err)
		}
		if at != source[0].Position() {
			t.Fatalf("the checkpoint is at %s, the source at %s", at, source[0].Position())
		}
		return dir
	}
	target := kstest.Shards(t, 1, fs, func(o *shard.Options) { o.Dir, o.Writable = "target", false })
	install := func(i int) {
		if err := target[0].Install(write(i), source[0].Position(), source[0].Lineage()); err != nil {
			t.Fatal(err)
		}
	}
	install(1)
	replica := keyspace.New(keyspace.Options{})
	replica.SetShards(target)
	replica.SetReadOnly(true)

	var stop atomic.Bool
	var reads atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		// A reader ends with stop; waited for below.
		wg.Go(func() {
			s := replica.NewSession(nil)
			defer s.Close()
			for seen := 0; !stop.Load(); reads.Add(1) {
				got := strings.Split(run(t, s, "GET k", "GET none", "GET k"), "|")
				if len(got) != 6 || got[2] != "$-1" {
					t.Errorf("replies %q", got)
					return
				}
				for _, text := range []string{got[1], got[4]} {
					n, err := strconv.Atoi(text)
					if err != nil || n < seen {
						t.Errorf("read %q after %d", text, seen)
						return
					}
					seen = n
				}
			}
		})
	}
	for i := 2; i <= rounds; i++ {
		install(i)
	}
	stop.Store(true)
	wg.Wait()
	if reads.Load() == 0 {
		t.Error("nothing was read")
	}
}

package keyspace_test

import (
	"bytes"
	"flag"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/keyspace"
)

var long = flag.Bool("long", false, "also run what needs some GiB of memory")

// What does not fit in one mutation, or in one reply, is refused as a whole, and the connection goes on (pitfall 29).
func TestTooMuchAtOnce(t *testing.T) {
	if !*long {
		t.Skip("needs 4 GiB of memory: run with -long")
	}
	for _, shards := range []int{1, 3} {
		s := open(t, shards, keyspace.Options{}).NewSession(hook{})
		defer s.Close()
		var out sink
		big := [][]byte{[]byte("SET"), []byte("{x}big"), bytes.Repeat([]byte("v"), 350<<20)}
		if _, err := s.Exec([][][]byte{big}, &out); err != nil {
			t.Fatal(err)
		}
		expect(t, s, "+OK|+QUEUED|+QUEUED|+QUEUED|+QUEUED|-ERR the command changes more than 1 GiB at once, which does not fit in one mutation: split it|:0|",
			"MULTI", "SET {x}a 1", "COPY {x}big {x}1", "COPY {x}big {x}2", "COPY {x}big {x}3", "EXEC", "EXISTS {x}a {x}1 {x}2")
		expect(t, s, "-ERR the reply would be over 1 GiB: ask for less at once|+PONG|", "MGET {x}big {x}big {x}big", "PING")
		expect(t, s, "+OK|+QUEUED|+QUEUED|+QUEUED|-ERR the reply would be over 1 GiB: ask for less at once|",
			"MULTI", "GET {x}big", "GET {x}big", "GET {x}big", "EXEC")
		// Three copies, one command each, do fit: each in a group of its own.
		if got := run(t, s, "COPY {x}big {x}1", "COPY {x}big {x}2", "COPY {x}big {x}3"); got != strings.Repeat(":1|", 3) {
			t.Errorf("got %s", got)
		}
	}
}

package command

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/resp"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the differential test; 0 runs the built-in ones")
	countFlag = flag.Int("commands", 4000, "commands of each run of the differential test")
)

// TestDifferential sends the same random commands to a real Redis and to the handlers, in both protocols, on one shard
// and routed over three, and compares every reply byte for byte.
func TestDifferential(t *testing.T) {
	for i, run := range []struct{ proto, shards int }{{2, 1}, {3, 1}, {2, 3}, {3, 3}} {
		seed := uint64(1000 + i)
		if *seedFlag != 0 {
			seed = *seedFlag
		}
		t.Run(fmt.Sprintf("RESP%d/shards=%d", run.proto, run.shards), func(t *testing.T) {
			redis := commandtest.Dial(t, commandtest.StartRedis(t, "--databases", "1"), run.proto)
			x := newExecutor(t, run.shards)
			x.out.Proto = run.proto
			g := commandtest.NewGenerator(seed)
			if runtime.GOARCH != "amd64" { // there, long double is another type: see longdouble.go
				g.Kinds = slices.DeleteFunc(g.Kinds, func(k string) bool { return k == "incrbyfloat" })
			}
			var history [][][]byte
			for n := range *countFlag {
				args := g.Next()
				history = append(history, args)
				want := redis.Send(args)
				got := x.do(args)
				if commandtest.Same(args, want, got) {
					continue
				}
				for _, past := range history[max(0, len(history)-12):] {
					t.Log(commandtest.Format(past))
				}
				t.Fatalf("seed %d, command %d: %s\nredis: %q\n ours: %q", seed, n, commandtest.Format(args), want, got)
			}
		})
	}
}

// COMMAND's answers about commands that Redis has too are Redis's.
func TestDifferentialDescribe(t *testing.T) {
	addr := commandtest.StartRedis(t)
	var requests [][][]byte
	for _, c := range sorted {
		for _, what := range []string{"INFO", "DOCS"} {
			if len(c.Sub) == 0 && c.Summary == "" {
				requests = append(requests, words("COMMAND", what, c.Name))
			}
			for _, s := range c.Sub {
				if s.Summary == "" {
					requests = append(requests, words("command", what, s.Name))
				}
			}
		}
	}
	requests = append(requests,
		words("COMMAND", "INFO", "nosuch", "GET"), words("COMMAND", "DOCS", "nosuch", "GET", "Set"), words("COMMAND", "HELP"),
		words("COMMAND", "GETKEYS", "mset", "a", "1", "b", "2"), words("COMMAND", "GETKEYS", "ping", "x"), words("COMMAND", "GETKEYS", "get", "x", "y"),
		words("COMMAND", "GETKEYS", "nosuch", "x"), words("COMMAND", "GETKEYS", "get"), words("COMMAND", "GETKEYS", "object", "encoding", "k"),
		words("COMMAND", "GETKEYSANDFLAGS", "rename", "a", "b"), words("COMMAND", "GETKEYSANDFLAGS", "set", "a", "b", "GET"), words("COMMAND", "GETKEYS", "mset", "a"),
		words("COMMAND", "GETKEYSANDFLAGS", "set", "a", "b"), words("COMMAND", "GETKEYSANDFLAGS", "mset", "a", "b", "c", "d"),
		words("COMMAND", "LIST", "FILTERBY"), words("COMMAND", "LIST", "FILTERBY", "x", "y"), words("COMMAND", "LIST", "x", "pattern", "y"),
		words("COMMAND", "LIST", "FILTERBY", "pattern", "GETR*E"), words("COMMAND", "LIST", "FILTERBY", "MODULE", "x"), words("COMMAND", "LIST", "FILTERBY", "ACLCAT", "nosuch"),
		words("COMMAND", "nosuch"), words("COMMAND", "COUNT", "x"), words("COMMAND", "a\r\nb"))
	for _, proto := range []int{2, 3} {
		redis := commandtest.Dial(t, addr, proto)
		w := resp.Writer{Proto: proto}
		for _, args := range requests {
			w.Buf = w.Buf[:0]
			Describe(&w, args)
			if want := redis.Send(args); string(want) != string(w.Buf) {
				t.Errorf("RESP%d %s\nredis: %q\n ours: %q", proto, commandtest.Format(args), want, w.Buf)
			}
		}
	}
}

// OBJECT and a few others whose replies depend on what the random test cannot control.
func TestDifferentialObject(t *testing.T) {
	addr := commandtest.StartRedis(t)
	redis := commandtest.Dial(t, addr, 2)
	x := newExecutor(t, 1)
	for _, value := range []string{"", "1", "-1", "9999", "10000", "9223372036854775807", "9223372036854775808", "abc", "01",
		"44 bytes are the longest that are embedded..", "45 bytes, one more than the longest embedded.."} {
		for _, args := range [][][]byte{words("SET", "k", value), words("OBJECT", "ENCODING", "k"), words("OBJECT", "REFCOUNT", "k"), words("object", "idletime", "k")} {
			want := redis.Send(args)
			if got := x.do(args); string(got) != string(want) {
				t.Errorf("%s with %q\nredis: %q\n ours: %q", commandtest.Format(args), value, want, got)
			}
		}
	}
	for _, args := range [][][]byte{words("OBJECT", "ENCODING", "none"), words("OBJECT", "HELP"), words("OBJECT"), words("OBJECT", "x"),
		words("OBJECT", "ENCODING"), words("OBJECT", "FREQ", "k"), words("OBJECT", "help", "k"), words("oBject", "FREQ", "none")} {
		want := redis.Send(args)
		if got := x.do(args); string(got) != string(want) {
			t.Errorf("%s\nredis: %q\n ours: %q", commandtest.Format(args), want, got)
		}
	}
}

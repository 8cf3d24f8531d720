package keyspace_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/keyspace/kstest"
	"github.com/understudy-kv/understudy/internal/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink keeps what it is sent and notes the largest piece that was held at once.
type sink struct {
	w       resp.Writer
	sent    []byte
	largest int
	flushes int
}

func (s *sink) Writer() *resp.Writer { return &s.w }
func (s *sink) Flush() error {
	s.flushes++
	s.largest = max(s.largest, len(s.w.Buf))
	s.sent = append(s.sent, s.w.Buf...)
	s.w.Buf = s.w.Buf[:0]
	return nil
}
func (s *sink) Send(b []byte) error {
	_ = s.Flush()
	s.sent = append(s.sent, b...)
	return nil
}

// hook answers PING and ends the connection at QUIT.
type hook struct{}

func (hook) Command(c *command.Command, args [][]byte, w *resp.Writer) bool {
	switch c.Name {
	case "ping":
		w.Simple("PONG")
	case "quit":
		w.OK()
		return true
	default:
		w.Error("ERR hook: " + c.Name)
	}
	return false
}

func open(t testing.TB, shards int, o keyspace.Options) *keyspace.Keyspace {
	k := keyspace.New(o)
	k.SetShards(kstest.Shards(t, shards, nil, nil))
	return k
}

// words splits a line into a command's arguments; ” is the empty one.
func words(line string) [][]byte {
	var argv [][]byte
	for _, f := range strings.Fields(line) {
		if f == "''" {
			f = ""
		}
		argv = append(argv, []byte(f))
	}
	return argv
}

// run executes the lines as one pipeline and returns the replies as they went over the wire.
func run(t testing.TB, s *keyspace.Session, lines ...string) string {
	t.Helper()
	cmds := make([][][]byte, len(lines))
	for i, l := range lines {
		cmds[i] = words(l)
	}
	var out sink
	if _, err := s.Exec(cmds, &out); err != nil {
		t.Fatal(err)
	}
	_ = out.Flush()
	return strings.ReplaceAll(string(out.sent), "\r\n", "|")
}

func expect(t testing.TB, s *keyspace.Session, want string, lines ...string) {
	t.Helper()
	if got := run(t, s, lines...); got != want {
		t.Errorf("%q\n got %s\nwant %s", lines, got, want)
	}
}

func TestPipelineAcrossShards(t *testing.T) {
	for _, n := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := open(t, n, keyspace.Options{}).NewSession(hook{})
			defer s.Close()
			expect(t, s, "+OK|$1|1|+PONG|-ERR unknown command 'NOSUCH', with args beginning with: 'x' |:2|+OK|*4|$1|1|$1|2|$-1|$1|3|",
				"SET a 1", "GET a", "PING", "NOSUCH x", "INCR a", "MSET a 1 b 2 c 3", "MGET a b nosuch c")
			expect(t, s, ":3|:1|:1|$-1|:1|", "EXISTS a b c x", "DEL x a", "UNLINK b", "GET b", "DBSIZE")
			// Arguments that do not go evenly with the keys write nothing on any shard.
			expect(t, s, "-ERR wrong number of arguments for 'mset' command|:1|", "MSET d 1 e 2 f", "DBSIZE")
			expect(t, s, "+OK|-ERR no such key|:1|$1|3|:0|*1|$1|z|:0|+OK|:0|", "RENAME c z", "RENAME nosuch y", "COPY z c",
				"GET c", "RENAMENX c z", "KEYS [x-z]", "MSETNX q 1 z 2", "FLUSHALL", "DBSIZE")
			expect(t, s, "+OK|+OK|", "SET a b", "QUIT", "SET c d")
			expect(t, s, "$-1|", "GET c")
		})
	}
}

func TestMulti(t *testing.T) {
	for _, n := range []int{1, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := open(t, n, keyspace.Options{}).NewSession(hook{})
			defer s.Close()
			expect(t, s, "+OK|+QUEUED|+QUEUED|*2|+OK|:2|", "MULTI", "SET a 1", "INCR a", "EXEC")
			expect(t, s, "+OK|+QUEUED|+QUEUED|+QUEUED|+QUEUED|*4|+OK|$1|2|+PONG|:2|", "MULTI", "SET b 2", "GET a", "PING", "DBSIZE", "EXEC")
			// A transaction sees what it wrote, also in commands on the whole keyspace.
			expect(t, s, "+OK|+QUEUED|+QUEUED|+QUEUED|+QUEUED|+QUEUED|+QUEUED|*6|+OK|:0|+OK|*1|$1|c|*2|$1|0|*1|$1|c|$1|c|",
				"MULTI", "FLUSHALL", "DBSIZE", "SET c 3", "KEYS *", "SCAN 0 COUNT 100", "RANDOMKEY", "EXEC")
			expect(t, s, "+OK|-ERR unknown command 'NOSUCH', with args beginning with: |+QUEUED|-EXECABORT Transaction discarded because of previous errors.|",
				"MULTI", "NOSUCH", "SET c 4", "EXEC")
			expect(t, s, "+OK|-ERR MULTI calls can not be nested|-ERR WATCH inside MULTI is not allowed|+QUEUED|*1|$1|3|",
				"MULTI", "MULTI", "WATCH c", "GET c", "EXEC")
			expect(t, s, "-ERR EXEC without MULTI|-ERR DISCARD without MULTI|+OK|+QUEUED|+OK|$1|3|",
				"EXEC", "DISCARD", "MULTI", "SET c 9", "DISCARD", "GET c")
			// A command that fails does not undo the others.
			expect(t, s, "+OK|+QUEUED|+QUEUED|+QUEUED|*3|+OK|-ERR value is not an integer or out of range|+OK|",
				"MULTI", "SET a x", "INCR a", "SET b y", "EXEC")
			expect(t, s, "+OK|*0|", "MULTI", "EXEC")
		})
	}
}

func TestWatch(t *testing.T) {
	k := open(t, 4, keyspace.Options{})
	s, other := k.NewSession(hook{}), k.NewSession(hook{})
	defer s.Close()
	defer other.Close()
	for _, c := range []struct {
		name, before, change, want string
	}{
		{"untouched", "SET k 1", "GET k", "*1|+PONG|"},
		{"set", "SET k 1", "SET k 1", "*-1|"},
		{"created", "DEL k", "SET k 1", "*-1|"},
		{"deleted", "SET k 1", "DEL k", "*-1|"},
		{"delete of nothing", "DEL k", "DEL k", "*1|+PONG|"},
		{"flushall", "SET k 1", "FLUSHALL", "*-1|"},
		{"flushall of others", "DEL k", "FLUSHALL", "*1|+PONG|"},
		{"renamed to", "SET k2 1", "RENAME k2 k", "*-1|"},
		{"multi-key", "SET k 1", "MSET a 1 b 2 c 3 k 4", "*-1|"},
	} {
		run(t, other, c.before)
		expect(t, s, "+OK|", "WATCH x k")
		run(t, other, c.change)
		if got := run(t, s, "MULTI", "PING", "EXEC"); got != "+OK|+QUEUED|"+c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	expect(t, s, "+OK|", "WATCH k")
	run(t, other, "SET k 5")
	expect(t, s, "+OK|+OK|+QUEUED|*1|$1|5|", "UNWATCH", "MULTI", "GET k", "EXEC")
	expect(t, s, "+OK|+OK|+OK|+QUEUED|*-1|", "WATCH k", "SET k 6", "MULTI", "GET k", "EXEC")
	// Another set of shards is a change of everything.
	expect(t, s, "+OK|", "WATCH k")
	k.SetShards(k.Shards())
	expect(t, s, "+OK|+QUEUED|*-1|", "MULTI", "GET k", "EXEC")
}

func TestModes(t *testing.T) {
	k := keyspace.New(keyspace.Options{})
	s := k.NewSession(hook{})
	defer s.Close()
	const loading = "-LOADING Redis is loading the dataset in memory|"
	expect(t, s, loading+loading+"+OK|"+loading+"-EXECABORT Transaction discarded because of previous errors.|",
		"GET a", "DBSIZE", "MULTI", "GET a", "EXEC")
	k.SetShards(kstest.Shards(t, 2, nil, nil))
	expect(t, s, "+OK|+OK|+QUEUED|", "SET a 1", "MULTI", "SET a 2")
	k.SetReadOnly(true)
	const readOnly = "READONLY You can't write against a read only replica.|"
	expect(t, s, "-EXECABORT Transaction discarded because of: "+readOnly, "EXEC")
	expect(t, s, "-"+readOnly+"$1|1|-"+readOnly+"-"+readOnly, "SET a 1", "GET a", "FLUSHALL", "RENAME a b")
	expect(t, s, "+OK|-"+readOnly+"-EXECABORT Transaction discarded because of previous errors.|", "MULTI", "SET a 1", "EXEC")
	k.SetStale(keyspace.LinkDown)
	expect(t, s, "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.|+OK|+OK|", "GET a", "MULTI", "DISCARD")
}

func TestScan(t *testing.T) {
	s := open(t, 3, keyspace.Options{}).NewSession(hook{})
	defer s.Close()
	want := map[string]bool{}
	for i := range 500 {
		key := fmt.Sprintf("key:%d", i)
		run(t, s, "SET "+key+" v")
		want[key] = true
	}
	for _, count := range []string{"1", "7", "100", "100000"} {
		got, cursor := map[string]bool{}, "0"
		for steps := 0; ; steps++ {
			reply := strings.Split(run(t, s, "SCAN "+cursor+" COUNT "+count), "|")
			cursor = reply[2]
			for i := 5; i < len(reply); i += 2 {
				if got[reply[i]] {
					t.Fatalf("count %s: %s came twice", count, reply[i])
				}
				got[reply[i]] = true
			}
			if cursor == "0" {
				break
			}
			if steps > 1000 {
				t.Fatal("the scan does not end")
			}
		}
		if len(got) != len(want) {
			t.Errorf("count %s: %d keys, want %d", count, len(got), len(want))
		}
	}
	expect(t, s, "-ERR invalid cursor|-ERR syntax error|-ERR value is not an integer or out of range|-ERR syntax error|-ERR syntax error|",
		"SCAN x", "SCAN 0 COUNT 0", "SCAN 0 COUNT x", "SCAN 0 FOO 1", "SCAN 0 MATCH")
	expect(t, s, "*2|$1|0|*0|*2|$1|0|*0|-ERR invalid cursor|", "SCAN -1", "SCAN 18446744073709551615", "SCAN 18446744073709551616")
	expect(t, s, "*2|$1|0|*1|$6|key:42|*2|$1|0|*0|", "SCAN 0 COUNT 1000 MATCH k*:42 TYPE string", "SCAN 0 COUNT 1000 TYPE hash")
}

func TestReplyModes(t *testing.T) {
	s := open(t, 2, keyspace.Options{}).NewSession(hook{})
	defer s.Close()
	s.SetReply(keyspace.ReplySkip)
	expect(t, s, "$1|1|", "SET a 1", "GET a")
	s.SetReply(keyspace.ReplyOff)
	expect(t, s, "", "SET a 2", "PING", "NOSUCH", "MGET a b c d", "KEYS *", "MULTI", "GET a", "EXEC")
	s.SetReply(keyspace.ReplyOn)
	expect(t, s, "$1|2|", "GET a")
}

func TestRESP3(t *testing.T) {
	s := open(t, 2, keyspace.Options{}).NewSession(hook{})
	defer s.Close()
	s.Proto = 3
	expect(t, s, "_|*2|_|_|+OK|+OK|+OK|+QUEUED|_|", "GET a", "MGET a b", "WATCH a", "SET a 1", "MULTI", "PING", "EXEC")
}

// Replies are gathered up to a limit, whatever the pipeline asks for.
func TestRepliesAreBounded(t *testing.T) {
	const limit = 64 << 10
	s := open(t, 3, keyspace.Options{ReplyBytes: limit}).NewSession(hook{})
	defer s.Close()
	value := strings.Repeat("v", 10_000)
	var cmds [][][]byte
	want := ""
	for i := range 300 {
		key := fmt.Sprintf("key:%d", i)
		run(t, s, "SET "+key+" "+value+key)
		cmds = append(cmds, words("GET "+key))
		want += fmt.Sprintf("$%d\r\n%s%s\r\n", len(value)+len(key), value, key)
		if i%50 == 0 {
			cmds = append(cmds, words(fmt.Sprintf("MGET %s nosuch key:0", key)), words("PING"))
			want += fmt.Sprintf("*3\r\n$%d\r\n%s%s\r\n$-1\r\n$10005\r\n%skey:0\r\n+PONG\r\n", len(value)+len(key), value, key, value)
		}
	}
	var out sink
	if _, err := s.Exec(cmds, &out); err != nil {
		t.Fatal(err)
	}
	_ = out.Flush()
	if string(out.sent) != want {
		t.Errorf("%d bytes of replies, want %d, or others", len(out.sent), len(want))
	}
	if out.flushes < 20 || out.largest > limit+32<<10 {
		t.Errorf("%d flushes, the largest of %d bytes", out.flushes, out.largest)
	}
}

func TestErrorsAreCounted(t *testing.T) {
	k := open(t, 2, keyspace.Options{})
	s := k.NewSession(hook{})
	defer s.Close()
	run(t, s, "NOSUCH", "GET", "SET a x", "INCR a", "RENAME n1 n2", "SCAN x", "MULTI", "INCR a", "GET a", "EXEC", "TIME")
	if n := k.Stats.Errors.Load(); n != 7 {
		t.Errorf("%d errors, want 7", n)
	}
	if n := k.Stats.Commands.Load(); n != 11 {
		t.Errorf("%d commands, want 11", n)
	}
}

func TestDo(t *testing.T) {
	k := open(t, 2, keyspace.Options{})
	ctx := context.Background()
	do := func(args ...any) any {
		v, err := k.Do(ctx, args...)
		if err != nil {
			return err
		}
		return v
	}
	for _, c := range []struct {
		got, want any
	}{
		{do("SET", "a", 7), "OK"}, {do("INCR", []byte("a")), int64(8)}, {do("GET", "a"), "8"}, {do("GET", "b"), nil},
		{do("MGET", "a", "b"), []any{"8", nil}}, {do("LPOP", "a"), resp.ReplyError("ERR unknown command 'LPOP', with args beginning with: 'a' ")},
		{do("PING"), resp.ReplyError("ERR this command belongs to a connection, and there is none here")},
	} {
		if fmt.Sprintf("%#v", c.got) != fmt.Sprintf("%#v", c.want) {
			t.Errorf("got %#v, want %#v", c.got, c.want)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := k.Do(ended, "SET", "a", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

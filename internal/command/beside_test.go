package command

import (
	"fmt"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

// Every command that reads one key replies the same beside the shard as in its turn, and counts the same lookups.
func TestReadersReadWhatTransactionsDo(t *testing.T) {
	x := newExecutor(t, 1)
	x.now = time.Now().UnixMilli()
	for _, line := range [][]string{
		{"SET", "text", "some text"}, {"SET", "number", "42"}, {"SET", "empty", ""}, {"SET", "dies", "v", "PX", "90000"},
		{"SET", "dead", "v", "PX", "1"}, {"SET", "gone", "v"}, {"DEL", "gone"},
	} {
		x.do(words(line...))
	}
	x.commit()
	x.now += 5
	more := map[string][]string{"getrange": {"1", "3"}, "substr": {"0", "-2"}}
	e := x.shards[0].e
	var reader engine.Reader
	tried := 0
	var try func(c *Command)
	try = func(c *Command) {
		for _, sub := range c.Sub {
			try(sub)
		}
		first, last, _ := c.Keys(max(c.Arity, -c.Arity))
		if c.Flags&ReadOnly == 0 || c.Run == nil || first == 0 || first != last || len(c.Sub) > 0 {
			return
		}
		tried++
		for _, key := range []string{"text", "number", "empty", "dies", "dead", "gone", "never"} {
			line := []string{c.Name}
			if first == 2 {
				line = []string{"object", c.Name[len("object|"):]}
			}
			args := words(append(append(line, key), more[c.Name]...)...)
			var in, beside resp.Writer
			var turn, out Ctx
			tx := e.Tx()
			tx.Begin(&x.shards[0].b, x.group, x.now)
			turn.Bind(tx, &in)
			turn.Args = args
			c.Run(&turn)
			tx.Rollback()
			if err := reader.Begin(e, x.now); err != nil {
				t.Fatal(err)
			}
			out.BindReader(&reader, &beside)
			out.Args = args
			c.Run(&out)
			if err := reader.Err(); err != nil {
				t.Fatal(err)
			}
			reader.End()
			if string(in.Buf) != string(beside.Buf) || turn.Hits != out.Hits || turn.Misses != out.Misses {
				t.Errorf("%s: %q beside the shard (%d hits, %d misses), %q in its turn (%d, %d)", fmt.Sprintf("%q", args),
					beside.Buf, out.Hits, out.Misses, in.Buf, turn.Hits, turn.Misses)
			}
		}
	}
	for _, c := range sorted {
		try(c)
	}
	if tried < 12 {
		t.Fatalf("%d commands read one key, want a dozen: is the table another one?", tried)
	}
}

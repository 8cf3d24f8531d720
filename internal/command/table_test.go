package command

import (
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/resp"
)

// The client surface that was promised, by name.
const surface = `ping echo hello auth select quit reset client command config info time dbsize flushall flushdb keys scan type
randomkey set get setnx setex psetex getset getdel getex mset msetnx mget append strlen setrange getrange substr incr decr
incrby decrby incrbyfloat del unlink exists touch rename renamenx copy expire pexpire expireat pexpireat ttl pttl expiretime
pexpiretime persist multi exec discard watch unwatch wait waitaof role replicaof slaveof shutdown object
repl.slots repl.slot repl.status`

func TestTable(t *testing.T) {
	for _, name := range strings.Fields(surface) {
		c := Lookup([]byte(strings.ToUpper(name)))
		if c == nil || c.Name != name {
			t.Errorf("%s is not in the table", name)
		}
	}
	for _, c := range sorted {
		for _, x := range append([]*Command{c}, c.Sub...) {
			if d := x.doc(); d.Summary == "" || d.Since == "" || d.Group == "" {
				t.Errorf("%s has no documentation", x.Name)
			}
			if x.Arity == 0 || x.Name != strings.ToLower(x.Name) {
				t.Errorf("%+v", x)
			}
			if x.Flags&Write != 0 && x.Flags&ReadOnly != 0 {
				t.Errorf("%s writes and only reads", x.Name)
			}
			if x.Run != nil && len(x.Specs) == 0 && len(x.Sub) == 0 && x.Name != "object|help" {
				t.Errorf("%s has a handler and no keys", x.Name)
			}
			if x.Prompt && (x.Run != nil || len(x.Specs)+len(x.Sub) > 0 || x.Flags&(Write|ReadOnly) != 0) {
				t.Errorf("%s is not the server's, or works on keys", x.Name)
			}
			if (x.Merge != MergeNone) != (len(x.Specs) == 1 && x.Specs[0].Last < 0 && x.Run != nil && x.Name != "msetnx") {
				t.Errorf("%s: merge %d", x.Name, x.Merge)
			}
		}
	}
	for _, name := range []string{"", "nosuch", strings.Repeat("x", 100), "get\x00", "client|list"} {
		if c := Lookup([]byte(name)); c != nil {
			t.Errorf("%q is %s", name, c.Name)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		call              string
		first, last, step int
	}{
		{"get k", 1, 1, 1},
		{"mget a b c", 1, 3, 1},
		{"mset a 1 b 2", 1, 3, 2},
		{"mset a 1 b", 1, 3, 2}, // the last pair is incomplete: Run refuses the call
		{"rename a b", 1, 2, 1},
		{"copy a b REPLACE", 1, 2, 1},
		{"object ENCODING k", 2, 2, 1},
		{"object HELP", 0, 0, 1},
		{"watch a b", 1, 2, 1},
		{"ping", 0, 0, 1},
	} {
		args := words(strings.Fields(tt.call)...)
		first, last, step := Lookup(args[0]).Keys(len(args))
		if first != tt.first || last != tt.last || step != tt.step {
			t.Errorf("%s: %d, %d, %d", tt.call, first, last, step)
		}
	}
}

func TestFind(t *testing.T) {
	for call, want := range map[string]string{
		"get":                 "ERR wrong number of arguments for 'get' command",
		"GET a b":             "ERR wrong number of arguments for 'get' command",
		"client":              "ERR wrong number of arguments for 'client' command",
		"client KILL":         "ERR wrong number of arguments for 'client|kill' command",
		"client nosuch a":     "ERR unknown subcommand 'nosuch'. Try CLIENT HELP.",
		"nosuch":              "ERR unknown command 'nosuch', with args beginning with: ",
		"nosuch a bc":         "ERR unknown command 'nosuch', with args beginning with: 'a' 'bc' ",
		"get k":               "",
		"Client List TYPE x":  "",
		"repl.slot DROP some": "",
	} {
		c, text := Find(words(strings.Fields(call)...))
		if text != want || (c == nil) != (want != "") {
			t.Errorf("%s: %v, %q, want %q", call, c, text, want)
		}
	}
}

// COMMAND, its COUNT and its LIST agree.
func TestDescribeWhole(t *testing.T) {
	ask := func(words_ ...string) resp.Value {
		w := resp.Writer{Proto: 3}
		Describe(&w, words(words_...))
		v, err := resp.NewReader(strings.NewReader(string(w.Buf))).Read()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	n := len(sorted)
	if got := len(ask("COMMAND").Elems); got != n {
		t.Errorf("COMMAND lists %d of %d", got, n)
	}
	if got := len(ask("COMMAND", "DOCS").Elems); got != 2*n {
		t.Errorf("COMMAND DOCS lists %d of %d", got/2, n)
	}
	if got := ask("COMMAND", "COUNT").Int; got != int64(n) {
		t.Errorf("COMMAND COUNT is %d of %d", got, n)
	}
	if got := len(ask("COMMAND", "LIST").Elems); got != n {
		t.Errorf("COMMAND LIST lists %d of %d", got, n)
	}
	if got := ask("COMMAND", "LIST", "FILTERBY", "PATTERN", "repl.*").Elems; len(got) != 7 {
		t.Errorf("COMMAND LIST FILTERBY PATTERN repl.* lists %v", got)
	}
	if got := ask("COMMAND", "LIST", "FILTERBY", "ACLCAT", "transaction").Elems; len(got) != 5 {
		t.Errorf("COMMAND LIST FILTERBY ACLCAT transaction lists %v", got)
	}
}

package lint

import (
	"fmt"
	"strings"
	"testing"
)

// TestRulesSee shows every rule an offender and, beside it, the nearest thing that is in order.
func TestRulesSee(t *testing.T) {
	imports := func(paths ...string) string {
		s := "package p\n"
		for _, p := range paths {
			s += fmt.Sprintf("import _ %q\n", p)
		}
		return s
	}
	for _, c := range []struct {
		name, path, src string
		rule            func([]*File) []Finding
		want            string // part of the one finding, "" for none
	}{
		{"wire may not have files", "wire/a.go", imports("fmt", "os"), Imports, "imports os: wire is pure"},
		{"nor anything below them", "wire/a.go", imports("net/netip"), Imports, "imports net/netip: wire is pure"},
		{"its tests may", "wire/a_test.go", imports("os"), Imports, ""},
		{"wire imports nothing of ours", "wire/a.go", imports(Module + "/internal/status"), Imports, "wire is the bottom"},
		{"not even in tests", "wire/a_test.go", imports(Module + "/backlog"), Imports, "wire is the bottom"},
		{"but itself", "wire/a_test.go", imports(Module + "/wire"), Imports, ""},
		{"slottable may use wire", "slottable/a.go", imports(Module + "/wire"), Imports, ""},
		{"and no logger", "slottable/a.go", imports(hclogModule), Imports, "slottable is pure"},
		{"a name that begins alike is another package", "wire/a.go", imports("oslo", "network"), Imports, ""},
		{"the log may not use os", "backlog/a.go", imports("os"), Imports, "through vfs.FS"},
		{"it may use vfs", "backlog/a.go", imports(pebbleFiles), Imports, ""},
		{"but not Pebble", "backlog/a.go", imports(pebbleModule), Imports, "only the engine knows Pebble"},
		{"the engine may", "internal/engine/a.go", imports(pebbleModule, pebbleModule+"/batchrepr"), Imports, ""},
		{"primary and replica are strangers", "primary/a.go", imports(Module + "/replica"), Imports, "never import each other"},
		{"both ways, in tests too", "replica/a_test.go", imports(Module + "/primary"), Imports, "never import each other"},
		{"e2e has no way in", "e2e/a_test.go", imports(Module + "/internal/server"), Imports, "built binaries only"},
		{"but for the figures", "e2e/a_test.go", imports(Module + "/internal/status"), Imports, ""},
		{"nobody imports a command", "internal/server/a.go", imports(Module + "/cmd/demo"), Imports, "a command is the top"},
		{"a command imports the server", "cmd/primary/main.go", imports(Module + "/internal/server"), Imports, ""},

		{"no clock in pure code", "wire/a.go", "package p\nimport \"time\"\nvar t = time.Now()\n", Pure, "time.Now in a pure"},
		{"under no other name", "wire/a.go", "package p\nimport x \"time\"\nvar t = x.After(1)\n", Pure, "time.After in a pure"},
		{"durations are values", "slottable/a.go", "package p\nimport \"time\"\nvar t = time.Second\n", Pure, ""},
		{"no goroutine in pure code", "slottable/a.go", "package p\nfunc f() { go f() }\n", Pure, "a goroutine in a pure"},
		{"no channel in pure code", "slottable/a.go", "package p\nvar c chan int\n", Pure, "a channel in a pure"},
		{"no output in pure code", "wire/a.go", "package p\nimport \"fmt\"\nfunc f() { fmt.Println() }\n", Pure, "output"},
		{"elsewhere all that is in order", "primary/a.go", "package p\nimport \"time\"\nvar t = time.Now()\nvar c chan int\n", Pure, ""},

		{"tests do not sleep", "x/a_test.go", "package p\nimport \"time\"\nfunc f() { time.Sleep(1) }\n", Sleeps, "time.Sleep in a test"},
		{"except in a bubble", "x/a_test.go", "package p\nimport (\n\t_ \"testing/synctest\"\n\t\"time\"\n)\nfunc f() { time.Sleep(1) }\n", Sleeps, ""},

		{"a goroutine says why", "x/a.go", "package p\nfunc f() {\n\tx()\n\tgo f()\n}\n", Goroutines, "without a sentence"},
		{"a comment further up is about something else", "x/a.go", "package p\nfunc f() {\n\t// x\n\tx()\n\tgo f()\n}\n", Goroutines, "without a sentence"},
		{"a group's too", "x/a.go", "package p\nfunc f() {\n\tg.Go(f)\n}\n", Goroutines, "without a sentence"},
		{"said", "x/a.go", "package p\nfunc f() {\n\t// Ends with f.\n\tgo f()\n\t// The same.\n\tg.Go(f)\n}\n", Goroutines, ""},

		{"a long file", "x/a.go", "package p\n" + strings.Repeat("\n", MaxLines), Lengths, "more than 500 lines"},
		{"a file that just fits", "x/a.go", "package p\n" + strings.Repeat("\n", MaxLines-1), Lengths, ""},
		{"not formatted", "x/a.go", "package p\nvar  a int\n", Format, "gofmt"},
		{"a promise", "x/a.go", "package p\n\n// TO" + "DO: later\n", Promises, "open an issue"},
		{"an exit", "x/a.go", "package p\nimport \"os\"\nfunc f() { os.Exit(1) }\n", Fatal, "return an error"},
		{"an exit of a command", "cmd/x/main.go", "package main\nimport \"os\"\nfunc f() { os.Exit(1) }\n", Fatal, ""},
		{"the other logger", "x/a.go", "package p\nimport \"log\"\nfunc f() { log.Fatal() }\n", Fatal, "hclog"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Parse(c.path, []byte(c.src))
			if err != nil {
				t.Fatal(err)
			}
			got := c.rule([]*File{f})
			switch {
			case c.want == "" && len(got) != 0:
				t.Errorf("found %v, want nothing", got)
			case c.want != "" && (len(got) == 0 || !strings.Contains(got[0].String(), c.want)):
				t.Errorf("found %v, want %q", got, c.want)
			}
		})
	}
}

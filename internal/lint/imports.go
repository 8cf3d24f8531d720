package lint

import (
	"slices"
	"strings"
)

// An importRule forbids imports to the packages below a folder. Paths are from the repository's root, or whole for
// packages from outside; each stands for itself and everything below it. Tests are held only to rules that say so.
type importRule struct {
	of      string
	besides []string // folders below of that the rule leaves alone
	never   []string
	unless  []string // exceptions of never
	tests   bool
	why     string
}

// The module paths that rules name.
const (
	pebbleModule = "github.com/cockroachdb/pebble/v2"
	pebbleFiles  = pebbleModule + "/vfs"
	hclogModule  = "github.com/hashicorp/go-hclog"
)

// everything is all of this repository.
const everything = "…"

// importRules are design.md §2 as a table. The first finding of a new package is the moment to think about its place.
var importRules = []importRule{
	{
		of: "wire", never: []string{everything}, unless: []string{"wire"}, tests: true,
		why: "wire is the bottom: whatever it imported, every other package would import with it",
	},
	{
		of: "slottable", never: []string{everything}, unless: []string{"slottable", "wire"}, tests: true,
		why: "slottable decides about slots and knows only their words",
	},
	{
		of:    "wire",
		never: []string{"net", "os", "log", "syscall", "io/fs", "math/rand", "crypto/rand", hclogModule, pebbleModule, "golang.org/x/sys"},
		why:   "wire is pure: bytes in, bytes out, so that every decision about bytes can be tested with bytes alone",
	},
	{
		of:    "slottable",
		never: []string{"net", "os", "log", "syscall", "io/fs", "math/rand", "crypto/rand", hclogModule, pebbleModule, "golang.org/x/sys"},
		why:   "slottable is pure: time and events are passed in, so that both edges of a window can be tested exactly",
	},
	{
		of: "backlog", never: []string{everything, "net"}, unless: []string{"backlog", "internal/pagecache", "wire"},
		why: "the log is frames in files; what they mean is for those above it",
	},
	{
		of: "backlog", never: []string{"os"},
		why: "the log touches files only through vfs.FS, so that crash tests can run it on a file system that crashes",
	},
	{
		of: "primary", never: []string{"replica", "internal/server", "cmd"}, tests: true,
		why: "primary and replica never import each other: what both need is below them, and a role can change at run time",
	},
	{
		of: "replica", never: []string{"primary", "slottable", "internal/server", "cmd"}, tests: true,
		why: "primary and replica never import each other: what both need is below them, and a role can change at run time",
	},
	{
		of: "internal/engine", never: []string{everything, "net"}, unless: []string{"internal/engine", "internal/hugepage", "internal/polite", "wire"},
		why: "the engine applies batches and answers reads; it knows neither the log nor who asks",
	},
	{
		of: "internal/resp", never: []string{everything}, unless: []string{"internal/resp"},
		why: "resp is a format, useful without the rest",
	},
	{
		of: "internal/netpoll", never: []string{everything}, unless: []string{"internal/netpoll"},
		why: "netpoll knows sockets; what is said on them is for those above it",
	},
	{
		of: "internal/command", never: []string{everything, "net", "os"}, unless: []string{"internal/command", "internal/resp", "internal/glob", "internal/engine", "wire"},
		why: "a command is a function from arguments to a reply and a mutation; it reaches no socket, file, log or shard",
	},
	{
		of: "internal/shard", never: []string{"primary", "replica", "slottable", "internal/server", "internal/keyspace", "internal/command", "internal/resp", "cmd", "net"},
		why: "a shard runs jobs and keeps the log and the state machine in step, for whoever hands them in",
	},
	{
		of: "internal/store", never: []string{"primary", "replica", "slottable", "internal/server", "internal/keyspace", "internal/command", "internal/resp", "cmd", "net"},
		why: "a store is a data directory; it does not know its node's role",
	},
	{
		of: "internal/keyspace", never: []string{"primary", "replica", "slottable", "internal/server", "cmd"},
		why: "the router sends commands to shards, whatever the role of the node",
	},
	{
		of: "internal/loadgen", never: []string{everything}, unless: []string{"internal/loadgen"},
		why: "what makes the load shares nothing with what is measured: a fault of ours must not hide itself",
	},
	{
		of: "internal/bench", never: []string{"primary", "replica", "slottable", "backlog", "wire", "internal/server", "internal/keyspace", "internal/shard", "internal/engine"},
		why: "the bench measures the built programs from outside, as it does the others",
	},
	{
		of: "e2e", never: []string{everything}, unless: []string{"e2e", "internal/status", "internal/faultproxy", "internal/ports", "internal/resp", "internal/eventually", "internal/command/commandtest"}, tests: true,
		why: "e2e drives the built binaries only: what it needs from a package, users of the binaries would need too",
	},
	{
		of: everything, besides: []string{"internal/replctl", "internal/sim"}, never: []string{"internal/sim"},
		why: "the simulator drives everything, and nothing depends on it; it imports testing, which no server is to carry",
	},
	{
		of: everything, never: []string{"cmd"}, unless: nil, tests: true,
		why: "a command is the top",
	},
	{
		of: everything, never: []string{"e2e", "internal/lint"}, unless: nil,
		why: "tests are for nobody's use",
	},
}

// pebbleUsers are the packages that may know Pebble itself, not only its file system interface.
var pebbleUsers = []string{"internal/engine"}

// Imports checks design.md §2's table of who may import whom.
func Imports(files []*File) []Finding {
	var all []Finding
	for _, f := range files {
		for imported, spec := range f.imports() {
			for _, r := range importRules {
				if f.Test() && !r.tests || !r.holds(f.Package()) || r.of == everything && under(f.Package(), "cmd") {
					continue
				}
				for _, never := range r.never {
					if !forbids(imported, never) || allowed(imported, r.unless) || own(f, imported) {
						continue
					}
					all = append(all, f.finding(spec.Pos(), "imports %s: %s", imported, r.why))
					break
				}
			}
			if f.Test() || !forbids(imported, pebbleModule) || forbids(imported, pebbleFiles) {
				continue
			}
			if !allowed(Module+"/"+f.Package(), pebbleUsers) {
				all = append(all, f.finding(spec.Pos(), "imports %s: only the engine knows Pebble, so that another state machine "+
					"can take its place; the others use %s", imported, pebbleFiles))
			}
		}
	}
	return all
}

func (r importRule) holds(pkg string) bool {
	return under(pkg, r.of) && !slices.ContainsFunc(r.besides, func(folder string) bool { return under(pkg, folder) })
}

func under(pkg, folder string) bool {
	return folder == everything || pkg == folder || strings.HasPrefix(pkg, folder+"/")
}

func forbids(imported, never string) bool {
	if local, ok := strings.CutPrefix(imported, Module+"/"); ok {
		return under(local, never)
	}
	return never != everything && under(imported, never)
}

func allowed(imported string, unless []string) bool {
	for _, u := range unless {
		if forbids(imported, u) {
			return true
		}
	}
	return false
}

// own reports whether a file imports its own folder, as an external test does.
func own(f *File, imported string) bool { return imported == Module+"/"+f.Package() }

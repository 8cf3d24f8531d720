package lint

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/token"
	"strings"
)

// MaxLines is how long a file may be. Past it there is a second idea in the file.
const MaxLines = 500

// Sleeps finds tests that wait for a time: a condition with a deadline is faster when all is well and waits longer
// when the machine is slow. Inside testing/synctest a sleep is how time moves, so files that use it are left out.
func Sleeps(files []*File) []Finding {
	var all []Finding
	for _, f := range files {
		if !f.Test() || f.imports()["testing/synctest"] != nil {
			continue
		}
		f.uses("time", func(name string, at token.Pos) {
			if name == "Sleep" {
				all = append(all, f.finding(at, "time.Sleep in a test: wait for a condition with a deadline, or use testing/synctest"))
			}
		})
	}
	return all
}

// Goroutines finds starts of goroutines outside tests without a sentence directly above: who starts it, what it
// owns, what ends it, who waits for it. `go` statements count, and calls of a Go method with a function (WaitGroup, errgroup).
func Goroutines(files []*File) []Finding {
	var all []Finding
	for _, f := range files {
		if f.Test() {
			continue
		}
		commented := map[int]bool{} // lines on which a comment ends
		for _, g := range f.AST.Comments {
			commented[f.Line(g.End())] = true
		}
		check := func(at token.Pos) {
			if !commented[f.Line(at)-1] {
				all = append(all, f.finding(at, "a goroutine without a sentence above it: say who starts it, what it owns, what ends it, who waits"))
			}
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				check(n.Pos())
			case *ast.ExprStmt:
				if call, ok := n.X.(*ast.CallExpr); ok && len(call.Args) == 1 {
					if s, ok := call.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" {
						check(n.Pos())
					}
				}
			}
			return true
		})
	}
	return all
}

// Lengths finds files of more than MaxLines lines.
func Lengths(files []*File) []Finding {
	var all []Finding
	for _, f := range files {
		if n := bytes.Count(f.Src, []byte("\n")); n > MaxLines {
			all = append(all, Finding{Path: f.Path, Line: n, Text: "a file of more than 500 lines: split it where the second idea begins"})
		}
	}
	return all
}

// Format finds files that gofmt would change.
func Format(files []*File) []Finding {
	var all []Finding
	for _, f := range files {
		if got, err := format.Source(f.Src); err != nil || !bytes.Equal(got, f.Src) {
			all = append(all, Finding{Path: f.Path, Line: 1, Text: "not formatted: run gofmt -w"})
		}
	}
	return all
}

// Promises finds comments that promise later work. What is not done belongs in an issue.
func Promises(files []*File) []Finding {
	var all []Finding
	for _, f := range files {
		for _, g := range f.AST.Comments {
			for _, c := range g.List {
				for _, word := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:", "HA" + "CK"} {
					if strings.Contains(c.Text, word) {
						all = append(all, f.finding(c.Pos(), "%s in a comment: do it, or open an issue", word))
					}
				}
			}
		}
	}
	return all
}

// Fatal finds calls that end the process outside a main package and outside tests: an error is returned, and a shard
// that fails must not take the others with it.
func Fatal(files []*File) []Finding {
	var all []Finding
	for _, f := range files {
		if f.Test() || f.AST.Name.Name == "main" {
			continue
		}
		f.uses("os", func(name string, at token.Pos) {
			if name == "Exit" {
				all = append(all, f.finding(at, "os.Exit outside a main: return an error"))
			}
		})
		f.uses("log", func(name string, at token.Pos) {
			all = append(all, f.finding(at, "log.%s: the one logger seam is hclog, and nothing here is fatal to the process", name))
		})
	}
	return all
}

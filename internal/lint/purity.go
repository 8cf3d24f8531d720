package lint

import (
	"go/ast"
	"go/token"
)

// pure are the packages that compute and do nothing else.
var pure = []string{"wire", "slottable"}

// clock lists what of package time reads or waits for the clock. Durations, instants and their arithmetic are values.
var clock = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true, "Tick": true,
	"NewTimer": true, "NewTicker": true, "Local": true,
}

// Pure checks that the pure packages start no goroutine, have no channel and ask no clock. Their imports are checked
// by Imports.
func Pure(files []*File) []Finding {
	var all []Finding
	for _, f := range files {
		if f.Test() || !isPure(f.Package()) {
			continue
		}
		f.uses("time", func(name string, at token.Pos) {
			if clock[name] {
				all = append(all, f.finding(at, "time.%s in a pure package: pass the time in", name))
			}
		})
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				all = append(all, f.finding(n.Pos(), "a goroutine in a pure package: decide here, act elsewhere"))
			case *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
				all = append(all, f.finding(n.Pos(), "a channel in a pure package: decide here, act elsewhere"))
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "print" || id.Name == "println") {
					all = append(all, f.finding(n.Pos(), "output in a pure package"))
				}
			}
			return true
		})
		f.uses("fmt", func(name string, at token.Pos) {
			if name == "Print" || name == "Printf" || name == "Println" {
				all = append(all, f.finding(at, "output in a pure package"))
			}
		})
	}
	return all
}

func isPure(pkg string) bool {
	for _, p := range pure {
		if under(pkg, p) {
			return true
		}
	}
	return false
}

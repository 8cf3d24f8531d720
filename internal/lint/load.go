package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Module is this repository's module path.
const Module = "github.com/understudy-kv/understudy"

// A File is one parsed Go file of the repository.
type File struct {
	Path string // from the repository's root, with slashes
	Src  []byte
	AST  *ast.File
	fset *token.FileSet
}

// Parse parses one file's source under the name path.
func Parse(path string, src []byte) (*File, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &File{Path: path, Src: src, AST: f, fset: fset}, nil
}

// Load parses every Go file below root, except those in hidden and testdata folders and in modules of their own.
func Load(root string) ([]*File, error) {
	var files []*File
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == root {
				return nil
			}
			if strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		f, err := Parse(filepath.ToSlash(rel), src)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

// Package is the folder that the file is in, "." for the root.
func (f *File) Package() string { return path.Dir(f.Path) }

// Test reports whether the file is only built for tests: it is one, or its package's name says that it helps them.
func (f *File) Test() bool {
	return strings.HasSuffix(f.Path, "_test.go") || strings.HasSuffix(f.AST.Name.Name, "test")
}

// Line is the line number of a position.
func (f *File) Line(p token.Pos) int { return f.fset.Position(p).Line }

// imports gives the paths that the file imports.
func (f *File) imports() map[string]*ast.ImportSpec {
	m := make(map[string]*ast.ImportSpec, len(f.AST.Imports))
	for _, s := range f.AST.Imports {
		m[strings.Trim(s.Path.Value, `"`)] = s
	}
	return m
}

// uses visits every selector that names something of the package imported as path: time.Sleep, os.Open.
func (f *File) uses(path string, visit func(name string, at token.Pos)) {
	spec, ok := f.imports()[path]
	if !ok {
		return
	}
	local := path[strings.LastIndexByte(path, '/')+1:]
	if spec.Name != nil {
		local = spec.Name.Name
	}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local {
				visit(s.Sel.Name, s.Pos())
			}
		}
		return true
	})
}

// A Finding is one place that breaks a rule.
type Finding struct {
	Path string
	Line int
	Text string
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Text) }

func (f *File) finding(at token.Pos, format string, args ...any) Finding {
	return Finding{Path: f.Path, Line: f.Line(at), Text: fmt.Sprintf(format, args...)}
}

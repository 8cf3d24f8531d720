package wire_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/wire"
)

// An exported constant of the package, with the comment that stands beside or above it.
type exportedConst struct {
	name, typ, value, comment string
}

// exportedConstants reads the package's source: a constant that is added cannot be forgotten.
func exportedConstants(t tb) []exportedConst {
	t.Helper()
	fset := token.NewFileSet()
	paths, err := filepath.Glob("*.go")
	mustEqual(t, err, nil)
	var files []*ast.File
	for _, p := range paths {
		if strings.HasSuffix(p, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		mustEqual(t, err, nil)
		files = append(files, f)
	}
	// Constants need no imports to be evaluated, so the errors of missing ones are of no interest.
	conf := types.Config{Error: func(error) {}}
	info := types.Info{Defs: map[*ast.Ident]types.Object{}}
	conf.Check("wire", fset, files, &info) //nolint:errcheck // see above
	var all []exportedConst
	for _, f := range files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for _, name := range v.Names {
					if !name.IsExported() {
						continue
					}
					c, ok := info.Defs[name].(*types.Const)
					if !ok || c.Val().Kind() == constant.Unknown {
						t.Fatalf("constant %s has no value", name.Name)
					}
					comment := v.Comment.Text()
					if comment == "" {
						comment = v.Doc.Text()
					}
					if comment == "" && len(g.Specs) == 1 {
						comment = g.Doc.Text()
					}
					all = append(all, exportedConst{
						name: name.Name, typ: types.TypeString(c.Type(), func(*types.Package) string { return "" }),
						value: c.Val().ExactString(), comment: strings.Join(strings.Fields(comment), " "),
					})
				}
			}
		}
	}
	return all
}

// TestConstants pins the name, type and value of every exported constant.
func TestConstants(t *testing.T) {
	var text strings.Builder
	fmt.Fprintf(&text, "Magic [2]byte % x\n", wire.Magic)
	for _, c := range exportedConstants(t) {
		fmt.Fprintf(&text, "%s %s %s\n", c.name, c.typ, c.value)
	}
	golden(t, filepath.Join("testdata", "constants.txt"), text.String())
}

// TestEveryConstantHasAVector: every kind, operation, field, reason and code occurs in a golden vector.
func TestEveryConstantHasAVector(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors() {
		for _, p := range annotate(t, v.build(t)) {
			switch p.name {
			case "kind":
				seen[fmt.Sprintf("Kind %d", p.bytes[0])] = true
			case "op":
				seen[fmt.Sprintf("OpKind %d", p.bytes[0])] = true
			case "tag":
				seen[fmt.Sprintf("Field %d", (uint16(p.bytes[0])|uint16(p.bytes[1])<<8)&^uint16(wire.FieldRequired))] = true
			case "code":
				seen[fmt.Sprintf("Code %q", p.bytes)] = true
			case "outcome":
				seen[fmt.Sprintf("Outcome %q", p.bytes)] = true
			case "reason":
				seen[fmt.Sprintf("Reason %q", p.bytes)] = true
			}
		}
	}
	for _, c := range exportedConstants(t) {
		switch {
		case c.name == "KindOptional" || c.name == "FieldRequired": // Boundaries, not values that are sent.
		case c.typ == "Kind", c.typ == "OpKind", c.typ == "Field", c.typ == "Code", c.typ == "Reason", c.typ == "Outcome":
			if !seen[c.typ+" "+c.value] {
				t.Errorf("no golden vector has the %s %s", c.typ, c.name)
			}
		}
	}
}

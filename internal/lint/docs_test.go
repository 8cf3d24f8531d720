package lint

import (
	"bytes"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile("`([a-z][a-z0-9_/]*)\\.((?:Test|Fuzz|Example)[A-Za-z0-9_]*)`")
	link     = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
)

// TestDocsNameWhatThereIs: every test that docs/testing.md names exists, and no link between documents is dead.
func TestDocsNameWhatThereIs(t *testing.T) {
	files, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range files {
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.Test() && fn.Recv == nil {
				have[f.Package()+"."+fn.Name.Name] = true
			}
		}
	}
	docs, err := filepath.Glob(root + "/docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	adr, err := filepath.Glob(root + "/docs/adr/*.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, doc := range append(append(docs, adr...), root+"/README.md") {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testName.FindAllStringSubmatch(string(b), -1) {
			if named++; !have[m[1]+"."+m[2]] {
				t.Errorf("%s names %s.%s, which does not exist", doc, m[1], m[2])
			}
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
			}
		}
		if n := bytes.Count(b, []byte("\n")); strings.HasSuffix(doc, "README.md") && n >= 120 {
			t.Errorf("%s has %d lines, less than 120 are read", doc, n)
		}
	}
	if named < 100 {
		t.Errorf("only %d tests are named", named)
	}
}

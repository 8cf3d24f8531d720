package lint

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// TestRepository runs every rule over the repository.
func TestRepository(t *testing.T) {
	files, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d files were found", len(files))
	}
	for name, rule := range map[string]func([]*File) []Finding{
		"imports": Imports, "pure": Pure, "sleeps": Sleeps, "goroutines": Goroutines,
		"lengths": Lengths, "format": Format, "promises": Promises, "fatal": Fatal,
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range rule(files) {
				t.Error(f)
			}
		})
	}
}

// TestVet and TestStaticcheck build the whole repository, so they are not in the short run; .ci/run has them.
func TestVet(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run")
	}
	if out, err := run(t, "go", "vet", "./..."); err != nil {
		t.Errorf("go vet: %v\n%s", err, out)
	}
}

func TestStaticcheck(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run")
	}
	if out, err := run(t, "go", "tool", "-modfile=.ci/tools/go.mod", "staticcheck", "-version"); err != nil {
		t.Skipf("staticcheck cannot be built here (its module has to be downloaded once): %v\n%s", err, out)
	}
	if out, err := run(t, "go", "tool", "-modfile=.ci/tools/go.mod", "staticcheck", "./..."); err != nil {
		t.Errorf("staticcheck: %v\n%s", err, out)
	}
}

func run(t *testing.T, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

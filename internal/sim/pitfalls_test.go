package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pitfallSeeds is how many seeds a pitfall that was brought back may take to be found.
const pitfallSeeds = 1000

// patch is a unified diff, with lines that begin with # above it.
type patch struct {
	name  string
	files []diff
}

// diff is what a patch changes in one file.
type diff struct {
	file  string
	hunks []hunk
}

type hunk struct{ before, after string }

// readPatch reads a patch. Line numbers are not looked at: a hunk belongs where its lines are, and they must be in one place.
func readPatch(path string) (p patch, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return p, err
	}
	p.name = strings.TrimSuffix(filepath.Base(path), ".patch")
	var d *diff
	var h *hunk
	for _, line := range strings.SplitAfter(string(b), "\n") {
		switch {
		case line == "" || line[0] == '#' || strings.HasPrefix(line, "--- "):
		case strings.HasPrefix(line, "+++ b/"):
			p.files = append(p.files, diff{file: strings.TrimSpace(line[len("+++ b/"):])})
			d, h = &p.files[len(p.files)-1], nil
		case d != nil && strings.HasPrefix(line, "@@"):
			d.hunks = append(d.hunks, hunk{})
			h = &d.hunks[len(d.hunks)-1]
		case h == nil:
			return p, fmt.Errorf("%s: %q stands before the first hunk", path, line)
		case line[0] == '-':
			h.before += line[1:]
		case line[0] == '+':
			h.after += line[1:]
		default:
			h.before, h.after = h.before+line[1:], h.after+line[1:]
		}
	}
	if h == nil {
		return p, fmt.Errorf("%s: no file, or no hunk", path)
	}
	return p, nil
}

// apply returns the patched file.
func (d diff) apply(root string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(root, d.file))
	if err != nil {
		return nil, err
	}
	for _, h := range d.hunks {
		if n := bytes.Count(b, []byte(h.before)); n != 1 {
			return nil, fmt.Errorf("it no longer fits: %s has its lines %d times:\n%s", d.file, n, h.before)
		}
		b = bytes.Replace(b, []byte(h.before), []byte(h.after), 1)
	}
	return b, nil
}

const root = "../.."

func patches(t *testing.T) (all []patch) {
	t.Helper()
	paths, err := filepath.Glob("testdata/pitfalls/*.patch")
	if err != nil || len(paths) < 8 {
		t.Fatalf("%d patches, %v", len(paths), err)
	}
	for _, path := range paths {
		p, err := readPatch(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// The patches that bring pitfalls back still fit the code.
func TestPitfallsFit(t *testing.T) {
	for _, p := range patches(t) {
		for _, d := range p.files {
			before, err := os.ReadFile(filepath.Join(root, d.file))
			if err != nil {
				t.Fatal(err)
			}
			after, err := d.apply(root)
			if err != nil {
				t.Errorf("%s: %v", p.name, err)
			} else if bytes.Equal(before, after) {
				t.Errorf("%s changes nothing in %s", p.name, d.file)
			}
		}
	}
}

// The simulator sees: each pitfall that is brought back, in a build of its own, breaks an invariant.
func TestPitfallsAreFound(t *testing.T) {
	if !*long {
		t.Skip("it builds the simulator a dozen times: run it with -long")
	}
	for _, p := range patches(t) {
		t.Run(p.name, p.find)
	}
}

var found = regexp.MustCompile(`found at seed (\d+), after (\d+) seeds: (invariant \d+.*)`)

// find builds the simulator with the patch, and runs it until it finds something.
func (p patch) find(t *testing.T) {
	dir := t.TempDir()
	overlay, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
	replace, content := map[string]string{}, map[string][]byte{}
	for i, d := range p.files {
		b, err := d.apply(root)
		if err != nil {
			t.Fatal(err)
		}
		original, err := filepath.Abs(filepath.Join(root, d.file))
		if err != nil {
			t.Fatal(err)
		}
		patched := filepath.Join(dir, fmt.Sprintf("patched%d.go", i))
		replace[original], content[patched] = patched, b
	}
	var err error
	if content[overlay], err = json.Marshal(map[string]map[string]string{"Replace": replace}); err != nil {
		t.Fatal(err)
	}
	for path, b := range content {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("it does not compile: %v\n%s", err, out)
	}
	// It fails, so its exit status says nothing: what it prints does.
	out, _ := exec.CommandContext(t.Context(), program, "-test.run", "^TestUntilFound$", "-test.v", "-until", fmt.Sprint(pitfallSeeds)).CombinedOutput()
	m := found.FindSubmatch(out)
	if m == nil {
		t.Fatalf("nothing was found in %d seeds:\n%s", pitfallSeeds, out[max(0, len(out)-2000):])
	}
	t.Logf("%s seeds, seed %s, %.160s", m[2], m[1], m[3])
}

// TestUntilFound is what TestPitfallsAreFound runs in a patched build.
func TestUntilFound(t *testing.T) {
	if *until == 0 {
		t.Skip("only for TestPitfallsAreFound")
	}
	failed, why, ran := seeds(t, 1, *until, true)
	if failed == 0 {
		t.Fatalf("nothing was found in %d seeds", ran)
	}
	t.Logf("found at seed %d, after %d seeds: %v", failed, ran, why)
}

package wire_test

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/understudy-kv/understudy/wire"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files and the generated parts of docs/protocol.md")

// tb is what *testing.T, *testing.B, *testing.F and *rapid.T have in common.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

func mustEqual[T any](t tb, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b error) bool { return a == b })); d != "" {
		t.Fatalf("unexpected value (-want +got):\n%s", d)
	}
}

// golden compares text with the file, or writes the file when -rewrite is given.
func golden(t tb, path, text string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test ./wire -rewrite makes it; a change of bytes that are out there needs a new version)", err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Fatalf("%s differs (-file +code); go test ./wire -rewrite writes it anew, but a change of bytes that are out there "+
			"needs a new protocol version:\n%s", path, d)
	}
}

// TestGoldenVectors pins the bytes of every message: built as in the file, parsed from the file's bytes as built, and
// no strict prefix of them is anything but short (pitfall 5: part of a frame is not a frame).
func TestGoldenVectors(t *testing.T) {
	used := map[string]bool{}
	for _, v := range vectors() {
		path := filepath.Join("testdata", "vectors", v.name+".txt")
		used[path] = true
		t.Run(v.name, func(t *testing.T) {
			built := v.build(t)
			text := dump(annotate(t, built))
			if v.about != "" {
				text = "# " + v.about + "\n" + text
			}
			golden(t, path, text)
			raw := readVector(t, path)
			f, err := wire.ParseFrame(raw)
			mustEqual(t, err, nil)
			mustEqual(t, f.Raw, raw)
			v.parse(t, f)
			everyPrefixIsShort(t, raw)
			everyFlipIsRefused(t, raw)
		})
	}
	files, err := filepath.Glob(filepath.Join("testdata", "vectors", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !used[f] {
			t.Errorf("%s belongs to no vector: delete it", f)
		}
	}
}

// readVector reads the bytes of a vector's file, which are what stands between the position and the bar.
func readVector(t tb, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line, _, _ = strings.Cut(line, "|")
		b, err := hex.DecodeString(strings.Join(strings.Fields(line)[1:], ""))
		if err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		raw = append(raw, b...)
	}
	return raw
}

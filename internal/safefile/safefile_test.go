package safefile_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/safefile"
)

func TestRoundTrip(t *testing.T) {
	fs := vfs.NewMem()
	if _, err := safefile.Read(fs, "/", "f"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a file that is not there gave %v", err)
	}
	for _, content := range []string{"{}", "{}\n", "a\nb\n", "crc32c 00000000\n"} {
		if err := safefile.Write(fs, "/", "f", []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := safefile.Read(fs, "/", "f")
		if err != nil || strings.TrimRight(string(got), "\n") != strings.TrimRight(content, "\n") {
			t.Fatalf("wrote %q, read %q, %v", content, got, err)
		}
	}
}

// Every byte that is flipped, and every byte that is missing at the end, is noticed.
func TestDamageIsNoticed(t *testing.T) {
	fs := vfs.NewMem()
	if err := safefile.Write(fs, "/", "f", []byte("{\n  \"a\": 1\n}")); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open("/f")
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, 100)
	n, _ := f.ReadAt(whole, 0) // io.EOF: the file is shorter
	whole = whole[:n]
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	damaged := func(what string, b []byte) {
		t.Helper()
		f, err := fs.Create("/f", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := safefile.Read(fs, "/", "f"); err == nil || !strings.Contains(err.Error(), "/f is damaged") {
			t.Errorf("%s: read %q, %v", what, got, err)
		}
	}
	for i := range whole {
		b := append([]byte(nil), whole...)
		b[i] ^= 0x10
		damaged(fmt.Sprint("flipped byte ", i), b)
		damaged(fmt.Sprint("cut at ", i), whole[:i])
	}
}

// After a power loss the file holds what it held before, or what was written last, whole; and what Write returned for
// stays.
func TestPowerLoss(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		for seed := range uint64(20) {
			fs := vfs.NewCrashableMem()
			for i := range 5 {
				if err := safefile.Write(fs, "/", "f", fmt.Append(nil, i)); err != nil {
					t.Fatal(err)
				}
				lost := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 1))})
				got, err := safefile.Read(lost, "/", "f")
				if err != nil || string(got) != fmt.Sprintln(i) {
					t.Fatalf("after a power loss behind write %d: %q, %v", i, got, err)
				}
			}
		}
	}
}

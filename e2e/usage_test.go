package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A usage is what nodes have taken of the machine over a long run: for each node and figure, one sample after the other,
// taken when it was at rest.
type usage struct{ samples map[string][]int64 }

func newUsage() *usage { return &usage{samples: map[string][]int64{}} }

const (
	usedMemory     = "bytes of anonymous memory"
	usedGoroutines = "goroutines"
	usedFiles      = "open files"
	usedDisk       = "bytes on disk"
)

// bounds are what no sample may pass, and how much of a difference between the beginning and the end of a long run is noise.
var bounds = map[string]struct{ most, noise int64 }{
	usedMemory:     {most: 150 * mib, noise: 24 * mib},
	usedGoroutines: {most: 300, noise: 30},
	usedFiles:      {most: 400, noise: 40},
	usedDisk:       {most: 2 * (32 + 8) * 2 * mib, noise: 32 * mib}, // twice, for what a full sync keeps under previous/
}

func (u *usage) measure(t testing.TB, n *node) {
	t.Helper()
	add := func(what string, value int64) {
		key := n.name + ": " + what
		u.samples[key] = append(u.samples[key], value)
		if most := bounds[what].most; value > most {
			t.Errorf("%s: %d, at most %d are allowed", key, value, most)
		}
	}
	rss, err := n.proc.rss()
	must(t, err)
	add(usedMemory, rss)
	goroutines, err := strconv.ParseInt(n.info("server")["repl_goroutines"], 10, 64)
	must(t, err)
	add(usedGoroutines, goroutines)
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.proc.cmd.Process.Pid))
	must(t, err)
	add(usedFiles, int64(len(fds)))
	add(usedDisk, tree(n.dir, "surplus"))
}

// tree is how many bytes the files below a folder take, but for those in one that is left to the operator.
func tree(dir, but string) (total int64) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { //nolint:errcheck // files come and go
		if err == nil && d.IsDir() && path == filepath.Join(dir, but) {
			return fs.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

// judge compares the first third of a run with the last one, if the run was long enough to tell.
func (u *usage) judge(t testing.TB, ran time.Duration) {
	t.Helper()
	for key, all := range u.samples {
		_, what, _ := strings.Cut(key, ": ")
		third := len(all) / 3
		if third == 0 {
			continue
		}
		first, last := median(all[:third]), median(all[len(all)-third:])
		t.Logf("%s: %d at first, %d at last, %d at most in %d samples", key, first, last, slices.Max(all), len(all))
		if ran >= 2*time.Minute && last > first*5/4+bounds[what].noise {
			t.Errorf("%s: grew from %d to %d in %s", key, first, last, ran)
		}
	}
}

func median(all []int64) int64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

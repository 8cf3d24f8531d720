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
type usage struct {
	samples map[string][]int64
	bounds  map[string]bound
	flat    *node // its process lives from the beginning to the end, so nothing of it may grow
}

// A bound is what no sample may pass, and how much of a difference between the beginning and the end of a long run is noise.
type bound struct{ most, noise int64 }

const (
	usedMemory     = "bytes of anonymous memory"
	usedLive       = "bytes of live heap"
	usedGoroutines = "goroutines"
	usedFiles      = "open files"
	usedDisk       = "bytes on disk"
)

// nodeLimits are the options that a node's bounds follow from.
type nodeLimits struct {
	shards                             int64
	memory, backlog, inbox, keep, disk int64 // --memory, --backlog-memory, --inbox-bytes, --backlog-keep and --backlog-disk
}

// footprint is what a process may have beside what its settings speak of: the runtime, stacks, and room for garbage.
const footprint = 32 * mib

// newUsage computes the bounds. The process's memory limit is what --memory, the buffers beside it and its footprint add up to; the runtime
// keeps anonymous memory about there, garbage included, and what is live lies below. Either is lower for most of the time.
func newUsage(l nodeLimits) *usage {
	limit := l.memory + l.shards*(l.backlog+l.inbox) + footprint
	return &usage{samples: map[string][]int64{}, bounds: map[string]bound{
		usedMemory: {most: limit * 12 / 10, noise: 24 * mib},
		// Caches, memtables and backlogs fill up, inboxes are empty at rest; 16 MiB are for all else, sessions and clients included.
		usedLive:       {most: l.memory + l.shards*l.backlog + 16*mib, noise: 3 * mib},
		usedGoroutines: {most: 60 + 8*l.shards, noise: 8},
		usedFiles:      {most: 100 + 60*l.shards, noise: 16},
		// The log, the data and the snapshot that is being served or staged, and what a full sync keeps under previous/.
		usedDisk: {most: l.shards * (l.disk + 3*2*l.keep), noise: l.shards * 2 * l.keep},
	}}
}

func (u *usage) measure(t testing.TB, n *node) {
	t.Helper()
	add := func(what string, value int64) {
		key := n.name + ": " + what
		u.samples[key] = append(u.samples[key], value)
		if most := u.bounds[what].most; value > most {
			t.Errorf("%s: %d, at most %d are allowed", key, value, most)
		}
	}
	figure := func(section, name string) int64 {
		v, err := strconv.ParseInt(n.info(section)[name], 10, 64)
		must(t, err)
		return v
	}
	rss, err := n.proc.rss()
	must(t, err)
	add(usedMemory, rss)
	add(usedLive, figure("memory", "repl_memory_live"))
	add(usedGoroutines, figure("server", "repl_goroutines"))
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

// judge compares the halves of a run, if it was long enough to tell: of the node whose process lived through it, what was
// in use in the second half must be what was in use in the first. A tenth of the run is left out, in which caches fill.
// The data set grows, and with it what caches hold, up to their bounds; so of the live heap only what this process has beyond
// the others is compared, which have the same data and are started again and again. Anonymous memory is not compared: it is
// live heap and garbage, and garbage grows up to the memory limit, whenever it likes.
func (u *usage) judge(t testing.TB, ran time.Duration) {
	t.Helper()
	for key, all := range u.samples {
		name, what, _ := strings.Cut(key, ": ")
		if what == usedLive && name == u.flat.name {
			all = u.beyondOthers(all, what)
		}
		warm := all[len(all)/10:]
		half := len(warm) / 2
		if half == 0 {
			continue
		}
		first, last := median(warm[:half]), median(warm[half:])
		b := u.bounds[what]
		t.Logf("%s: %d in the first half, %d in the second, %d at most of %d in %d samples", key, first, last, slices.Max(all), b.most, len(all))
		if ran >= 2*time.Minute && name == u.flat.name && what != usedMemory && last > first+max(first, 0)/20+b.noise {
			t.Errorf("%s: grew from %d to %d in %s", key, first, last, ran)
		}
	}
}

// beyondOthers is how much more the flat node had than the mean of the others, sample by sample.
func (u *usage) beyondOthers(all []int64, what string) []int64 {
	out := slices.Clone(all)
	for i := range out {
		var sum, n int64
		for key, other := range u.samples {
			if name, w, _ := strings.Cut(key, ": "); w == what && name != u.flat.name && i < len(other) {
				sum, n = sum+other[i], n+1
			}
		}
		if n > 0 {
			out[i] -= sum / n
		}
	}
	return out
}

func median(all []int64) int64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

package pagecache

import (
	"os"
	"strconv"
	"strings"
)

// free is how many bytes the kernel could use for its cache: what it says is available, and no more than the process's control group may
// have (cgroup v2), if that is limited.
func free() int64 {
	n := int64(0)
	info, _ := os.ReadFile("/proc/meminfo") // without it there is none
	for line := range strings.Lines(string(info)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			n = kib << 10
		}
	}
	group, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(group)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			n = min(n, limit("/sys/fs/cgroup"+path+"/memory.max", n))
		}
	}
	return min(n, limit("/sys/fs/cgroup/memory.max", n))
}

// limit reads a limit in bytes; without one, or where it says max, it is the default.
func limit(path string, or int64) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return or
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return or
	}
	return n
}

package server

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
)

// usedMemory is what the Go runtime has from the system and uses, in bytes.
func usedMemory() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64() - s[2].Value.Uint64()
}

// liveMemory is what the last collection of the heap found in use, in bytes: what is beyond it is garbage, which grows until
// the memory limit, or gcPercent, calls for the next one.
func liveMemory() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// residentMemory is the process's resident set, or what the runtime knows where the system does not tell.
func residentMemory() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if f := bytes.Fields(b); err == nil && len(f) > 1 {
		if pages, err := strconv.ParseUint(string(f[1]), 10, 64); err == nil {
			return pages * uint64(os.Getpagesize())
		}
	}
	return usedMemory()
}

// systemMemory is the machine's memory, 0 where the system does not tell.
func systemMemory() uint64 {
	b, _ := os.ReadFile("/proc/meminfo")
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == "MemTotal:" {
		if kb, err := strconv.ParseUint(string(f[1]), 10, 64); err == nil {
			return kb << 10
		}
	}
	return 0
}

package hugepage

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// advised reports whether all mappings that the range touches are to be on large pages, by their flag "hg". Whether there are any at
// hand is another question.
func advised(t *testing.T, at, n uintptr) bool {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil || !bytes.Contains(smaps, []byte("\nVmFlags:")) {
		t.Skip("the kernel does not tell:", err)
	}
	found, within := false, false
	for line := range strings.Lines(string(smaps)) {
		var from, to uintptr
		if _, err := fmt.Sscanf(line, "%x-%x ", &from, &to); err == nil {
			within = from < at+n && at < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && within {
			if found = slices.Contains(strings.Fields(flags), "hg"); !found {
				return false
			}
		}
	}
	return found
}

func TestAdvise(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil {
		t.Skip("the kernel has no large pages:", err)
	}
	s := make([]uint64, 64<<20/8)
	at, n := uintptr(unsafe.Pointer(&s[0])), uintptr(64<<20)
	Advise(s)
	for i := range s {
		s[i] = uint64(i)
	}
	if !advised(t, at, n) {
		t.Error("not all of it is to be on large pages")
	}
	if s[0] != 0 || s[len(s)-1] != uint64(len(s)-1) {
		t.Error("it has changed")
	}
	Advise([]byte(nil))
	Advise(make([]byte, 100))
	Advise(make([]byte, 0, 3*Size))
}

func TestAround(t *testing.T) {
	for _, c := range []struct{ at, n, from, size uintptr }{
		{0, Size, 0, Size},
		{Size, Size / 2, Size, Size},
		{Size + 1, Size, Size, 2 * Size},
		{3*Size - 1, 2, 2 * Size, 2 * Size},
		{Size / 2, 3 * Size, 0, 4 * Size},
	} {
		if from, size := around(c.at, c.n); from != c.from || size != c.size {
			t.Errorf("around(%#x, %#x) = %#x, %#x, want %#x, %#x", c.at, c.n, from, size, c.from, c.size)
		}
	}
}

package hugepage

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"
)

// huge is how many KiB of the mappings that the range touches are on large pages.
func huge(t *testing.T, at, n uintptr) (kib int) {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("the kernel does not tell:", err)
	}
	within := false
	for line := range strings.Lines(string(smaps)) {
		var from, to uintptr
		if _, err := fmt.Sscanf(line, "%x-%x ", &from, &to); err == nil {
			within = from < at+n && at < to
		}
		var k int
		if _, err := fmt.Sscanf(line, "AnonHugePages: %d kB", &k); err == nil && within {
			kib += k
		}
	}
	return kib
}

func TestAdvise(t *testing.T) {
	enabled, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil || bytes.Contains(enabled, []byte("[never]")) {
		t.Skipf("the kernel gives no large pages: %s %v", enabled, err)
	}
	// Large enough to be memory that the process has not had before.
	s := make([]uint64, 64<<20/8)
	at, n := uintptr(unsafe.Pointer(&s[0])), uintptr(64<<20)
	Advise(s)
	for i := range s {
		s[i] = uint64(i)
	}
	if got := huge(t, at, n); got < 48<<10 {
		t.Errorf("%d KiB of 64 MiB are on large pages", got)
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

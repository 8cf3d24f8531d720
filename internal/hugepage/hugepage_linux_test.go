package hugepage

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
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

// resident counts the pages of b that are in memory.
func resident(t *testing.T, b []byte) (n int) {
	t.Helper()
	there := make([]byte, len(b)/os.Getpagesize())
	if _, _, err := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&there[0]))); err != 0 {
		t.Fatal("mincore:", err)
	}
	for _, p := range there {
		n += int(p & 1)
	}
	return n
}

func TestPopulate(t *testing.T) {
	const size = 4 << 20
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil && err != unix.EINVAL { // EINVAL: there are none
		t.Fatal(err)
	}
	page := os.Getpagesize()
	if err := unix.Madvise(b[:page], unix.MADV_POPULATE_WRITE); err == unix.EINVAL {
		t.Skip("the kernel cannot:", err)
	}
	b[2*page] = 7
	if n := resident(t, b); n != 2 {
		t.Fatalf("%d pages are in memory before", n)
	}
	Populate(b[2*page-1 : 2*page : 101*page+1]) // pages 2 to 100 lie whole in what it has room for
	if n, want := resident(t, b), 1+99; n != want || b[2*page] != 7 {
		t.Fatalf("%d pages are in memory, want %d; %d was 7", n, want, b[2*page])
	}
	Populate(b[: page-1 : page-1])
	Populate([]byte(nil))
	if n, want := resident(t, b), 1+99; n != want {
		t.Fatalf("%d pages are in memory, want %d", n, want)
	}
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

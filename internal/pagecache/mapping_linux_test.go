package pagecache

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

func mapped(t *testing.T, size int) (m *Mapping, path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	content = make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(content) // never fails
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := vfs.Default.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if m = Map(f, int64(size)); m == nil {
		t.Fatal("a file of the kernel's is not mapped")
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, path, content
}

// What was written a moment ago is in memory: every piece is read, the last one of the file too, and none that goes beyond.
func TestMapping(t *testing.T) {
	const size = 1<<20 + 123
	m, path, content := mapped(t, size)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		at := rng.IntN(size)
		p := make([]byte, rng.IntN(min(size-at, 100_000)+1))
		if !m.Read(p, int64(at)) || !bytes.Equal(p, content[at:at+len(p)]) {
			t.Fatalf("%d bytes from %d on", len(p), at)
		}
	}
	for _, c := range []struct {
		at, n int
		read  bool
	}{{0, size, true}, {0, size + 1, false}, {size - 1, 1, true}, {size - 1, 2, false}, {size, 0, true}, {size, 1, false}, {-1, 1, false}} {
		if got := m.Read(make([]byte, c.n), int64(c.at)); got != c.read {
			t.Errorf("%d bytes from %d on: %t", c.n, c.at, got)
		}
	}
	// The file may be gone, and what is written to it is seen.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("written since"), 5000); err != nil {
		t.Fatal(err)
	}
	if p := make([]byte, 13); !m.Read(p, 5000) || string(p) != "written since" {
		t.Errorf("read %q", p)
	}
}

// What the kernel does not have in memory is not waited for.
func TestMappingOfWhatIsOnDisk(t *testing.T) {
	const size = 1 << 20
	m, path, _ := mapped(t, size)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, size, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if !m.look() {
		t.Fatal("the kernel does not tell what is in memory")
	}
	there := bytes.Count(m.pages, []byte{1})
	if there == len(m.pages) {
		t.Skip("the kernel keeps the file in memory here")
	}
	read := 0
	for at := int64(0); at < size; at += m.page {
		if m.Read(make([]byte, 10), at) {
			read++
		}
	}
	if read != there {
		t.Errorf("%d pages were read, and %d of %d were in memory", read, there, len(m.pages))
	}
}

// A file that somebody has cut, behind the look at it or before, ends no process.
func TestMappingOfACutFile(t *testing.T) {
	const size = 1 << 20
	for _, looked := range []bool{false, true} {
		m, path, content := mapped(t, size)
		p := make([]byte, 10)
		if looked && !m.Read(p, size-100) {
			t.Fatal("what was written just now is not read")
		}
		if err := os.Truncate(path, size/2); err != nil {
			t.Fatal(err)
		}
		if m.Read(p, size-100) || m.copy(p, size-100) {
			t.Error("what was cut off is read")
		}
		if !m.Read(p, 0) || !bytes.Equal(p, content[:10]) {
			t.Error("what is left is not read")
		}
	}
}

// What comes into memory since is found there after a while.
func TestMappingLooksAgain(t *testing.T) {
	const size = 1 << 20
	m, _, content := mapped(t, size)
	clear(m.pages)
	m.looked, m.reads = time.Now(), clockEvery
	p := make([]byte, 10)
	if m.Read(p, 0) {
		t.Fatal("it was read although it was not there when it was looked for")
	}
	m.looked = m.looked.Add(-lookAgain)
	for range clockEvery {
		m.Read(p, 5)
	}
	if !m.Read(p, 5) || !bytes.Equal(p, content[5:15]) {
		t.Error("it is not found")
	}
}

// A file in memory only is no file of the kernel's.
func TestMappingOfNoFile(t *testing.T) {
	f, err := vfs.NewMem().Create("file", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	if Map(f, 7) != nil {
		t.Error("it is mapped")
	}
}

package replica

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/wire"
)

// TestStagingCrash: the power goes in the middle of a sync, and takes none, half or all of the unsynced bytes along.
// What is staged afterwards is verified again, and the sync completes with the right files (pitfall 40's little brother).
func TestStagingCrash(t *testing.T) {
	content := []byte(strings.Repeat("0123456789abcdef", 5000))
	manifest := (&fakePrimary{snapshot: wire.ID{1}, files: []file{{"a", content}, {"b/c", content[:777]}, {"d", nil}}}).manifest()
	contents := [][]byte{content, content[:777], nil}
	goOn := func() error { return nil }
	for percent := 0; percent <= 100; percent += 50 {
		for stop := 1; stop < 40; stop += 3 {
			mem := vfs.NewCrashableMem()
			run := func(fs vfs.FS, chunks int) (complete bool) {
				if err := errors.Join(fs.MkdirAll("/shard", 0o755), safefile.SyncDir(fs, "/")); err != nil {
					t.Fatal(err)
				}
				s, wants, err := openStaging(fs, "/shard", wire.Position{Generation: gen1, Offset: 5}, &manifest, minBlock, goOn)
				if err != nil {
					t.Fatal(err)
				}
				defer s.close()
				for len(wants) > 0 {
					for _, w := range wants {
						for from := int(w.From); from < len(contents[w.File]); from += 3000 {
							if chunks--; chunks < 0 {
								return false
							}
							data := contents[w.File][from:min(from+3000, len(contents[w.File]))]
							if err := s.store(wire.Chunk{File: w.File, From: uint64(from), Data: data}); err != nil {
								t.Fatal(err)
							}
						}
					}
					if wants, err = s.verify(); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.seal(); err != nil {
					t.Fatal(err)
				}
				return true
			}
			run(mem, stop)
			after := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: newRand(uint64(stop))})
			if !run(after, 1000) {
				t.Fatal("not complete")
			}
			// Sealed means durable.
			sealed := after.CrashClone(vfs.CrashCloneCfg{})
			for i, f := range manifest.Files {
				got, err := readAll(sealed, "/shard/staging/files/"+f.Name)
				if err != nil || string(got) != string(contents[i]) {
					t.Fatalf("%d%% kept, crash at chunk %d: %s: %v", percent, stop, f.Name, err)
				}
			}
		}
	}
}

// syncFS is a file system with another sync of files that are opened for writing.
type syncFS struct {
	vfs.FS
	sync func() error
}

type syncFile struct {
	vfs.File
	sync func() error
}

func (f syncFile) Sync() error { return f.sync() }

func (fs syncFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, o...)
	return syncFile{f, fs.sync}, err
}

// stageAll stages what is wanted of a manifest whose files all have this content, and returns how many files were.
func stageAll(fs vfs.FS, m *wire.Manifest, content []byte) (files int, err error) {
	s, wants, err := openStaging(fs, "/shard", wire.Position{Generation: gen1, Offset: 5}, m, minBlock, func() error { return nil })
	if err != nil {
		return 0, err
	}
	defer s.close()
	for _, w := range wants {
		if err := s.store(wire.Chunk{File: w.File, From: w.From, Data: content[w.From:]}); err != nil {
			return 0, err
		}
	}
	if again, err := s.verify(); err != nil || len(again) > 0 {
		return 0, errors.Join(err, errors.New("not whole"))
	}
	return len(wants), s.seal()
}

// TestStagingSyncsWhatItFinds: a process is killed when a file is whole and not synced yet; the next one keeps the file, and
// it outlives the power all the same.
func TestStagingSyncsWhatItFinds(t *testing.T) {
	content := []byte(strings.Repeat("x", 5000))
	manifest := (&fakePrimary{snapshot: wire.ID{1}, files: []file{{"a", content}, {"b", content}}}).manifest()
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll("/shard", 0o755), safefile.SyncDir(mem, "/")); err != nil {
		t.Fatal(err)
	}
	if n, err := stageAll(syncFS{mem, func() error { return nil }}, &manifest, content); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if n, err := stageAll(mem, &manifest, content); err != nil || n != 0 {
		t.Fatalf("%d files were staged again: %v", n, err)
	}
	after := mem.CrashClone(vfs.CrashCloneCfg{})
	for _, f := range manifest.Files {
		if got, err := readAll(after, "/shard/staging/files/"+f.Name); err != nil || string(got) != string(content) {
			t.Errorf("%s has %d bytes behind the power loss: %v", f.Name, len(got), err)
		}
	}
}

// TestStagingSyncFails: a file that cannot be synced ends the session, and is not there for the next one to be believed, for
// nobody knows what the disk has of it. What comes behind it is synced by whoever finds it.
func TestStagingSyncFails(t *testing.T) {
	content := []byte(strings.Repeat("x", 5000))
	var files []file
	for i := range 3 * maxUnsynced {
		files = append(files, file{string(rune('a' + i)), content})
	}
	manifest := (&fakePrimary{snapshot: wire.ID{1}, files: files}).manifest()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/shard", 0o755); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	breaks := syncFS{fs, func() error { return broken }}
	if _, err := stageAll(breaks, &manifest, content); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := readAll(fs, "/shard/staging/files/a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file that could not be synced is still there: %v", err)
	}
	if n, err := stageAll(fs, &manifest, content); err != nil || n == 0 {
		t.Errorf("%d files were staged again: %v", n, err)
	}
	// So does one that is found.
	if _, err := stageAll(breaks, &manifest, content); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := readAll(fs, "/shard/staging/files/a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file that was found and could not be synced is still there: %v", err)
	}
}

// TestStagingVerifyWaits: what is verified is durable.
func TestStagingVerifyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := []byte(strings.Repeat("x", 5000))
		var files []file
		for i := range 3 * maxUnsynced {
			files = append(files, file{string(rune('a' + i)), content})
		}
		manifest := (&fakePrimary{snapshot: wire.ID{1}, files: files}).manifest()
		fs := vfs.NewMem()
		if err := fs.MkdirAll("/shard", 0o755); err != nil {
			t.Fatal(err)
		}
		synced := 0
		slow := syncFS{fs, func() error { time.Sleep(time.Second); synced++; return nil }}
		s, wants, err := openStaging(slow, "/shard", wire.Position{Generation: gen1, Offset: 5}, &manifest, minBlock, func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for i, w := range wants {
			if err := s.store(wire.Chunk{File: w.File, Data: content}); err != nil {
				t.Fatal(err)
			}
			if i == maxUnsynced && time.Since(began) > 0 {
				t.Errorf("storing waited for %s", time.Since(began))
			}
		}
		if _, err := s.verify(); err != nil || synced != len(files) {
			t.Errorf("%d of %d files are synced: %v", synced, len(files), err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

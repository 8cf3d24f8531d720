package replica

import (
	"errors"
	"strings"
	"testing"

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
				s, wants, err := openStaging(fs, "/shard", wire.Position{Generation: gen1, Offset: 5}, &manifest, goOn)
				if err != nil {
					t.Fatal(err)
				}
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

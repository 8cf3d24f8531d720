package replica

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// pseudo is n bytes that tell where they are.
func pseudo(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>16 ^ i>>8*3 ^ i*7)
	}
	return b
}

// fullFS is a file system without room for more than so many bytes.
type fullFS struct {
	vfs.FS
	room atomic.Int64
	open atomic.Int32
}

type fullFile struct {
	vfs.File
	fs *fullFS
}

func (fs *fullFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, o...)
	fs.open.Add(1)
	return fullFile{f, fs}, err
}

func (f fullFile) WriteAt(b []byte, at int64) (int, error) {
	if f.fs.room.Add(-int64(len(b))) < 0 {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(b, at)
}

func (f fullFile) Close() error {
	f.fs.open.Add(-1)
	return f.File.Close()
}

// TestStagingDiskFull: a full disk ends the session with that error, whenever it is found out, and every file is closed; when there is
// room again, the next one goes on with what was written.
func TestStagingDiskFull(t *testing.T) {
	content := pseudo(5*minBlock + 100)
	manifest := (&fakePrimary{snapshot: wire.ID{1}, files: []file{{"a", content}, {"b", content}}}).manifest()
	for room := 0; room <= 2*len(content); room += len(content) / 3 {
		fs := &fullFS{FS: vfs.NewMem()}
		if err := fs.MkdirAll("/shard", 0o755); err != nil {
			t.Fatal(err)
		}
		run := func() error {
			s, wants, err := openStaging(fs, "/shard", wire.Position{Generation: gen1, Offset: 5}, &manifest, minBlock, func() error { return nil })
			if err != nil {
				return err
			}
			for _, w := range wants {
				for from := int(w.From); err == nil && from < len(content); from += 1000 {
					err = s.store(wire.Chunk{File: w.File, From: uint64(from), Data: content[from:min(from+1000, len(content))]})
				}
				if err != nil {
					return errors.Join(err, s.close())
				}
			}
			again, err := s.verify()
			if len(again) > 0 {
				err = errors.Join(err, fmt.Errorf("%d files are damaged", len(again)))
			}
			return errors.Join(err, s.close())
		}
		fs.room.Store(int64(room))
		if err := run(); room < 2*len(content) && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("with room for %d bytes: %v", room, err)
		}
		if n := fs.open.Load(); n != 0 {
			t.Errorf("with room for %d bytes: %d files are open behind it", room, n)
		}
		fs.room.Store(1 << 30)
		if err := run(); err != nil {
			t.Errorf("after room for %d bytes: %v", room, err)
		}
		for _, name := range []string{"a", "b"} {
			if got, err := readAll(fs, "/shard/staging/files/"+name); err != nil || !bytes.Equal(got, content) {
				t.Errorf("after room for %d bytes: %s has %d bytes, want %d, and others: %v", room, name, len(got), len(content), err)
			}
		}
		if n := fs.open.Load(); n != 0 {
			t.Errorf("after room for %d bytes: %d files are open", room, n)
		}
	}
}

// The blocks of all shards together stay within what they may take, as far as they can.
func TestBlockFor(t *testing.T) {
	for shards, want := range map[int]int{1: maxBlock, 2: maxBlock, 16: maxBlock, 17: maxBlock / 2, 32: maxBlock / 2, 256: minBlock} {
		got := blockFor(shards)
		if got != want {
			t.Errorf("%d shards: blocks of %d bytes, want %d", shards, got, want)
		}
		if all := shards * writeBlocks * got; all > blocksMemory {
			t.Errorf("%d shards: %d bytes of blocks", shards, all)
		}
	}
}

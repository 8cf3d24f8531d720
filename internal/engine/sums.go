package engine

import (
	"errors"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/understudy-kv/understudy/wire"
)

// sums are the XXH3-128 sums of the tables that this process wrote, taken from the bytes on their way to the file: whoever
// ships a checkpoint need not read it through first, and what the disk has damaged since does not agree. A table is never
// changed once it is closed. The mutex is a leaf.
type sums struct {
	sync.Mutex
	of map[string]wire.File // by path; their names are empty
}

func (s *sums) note(path string, f wire.File) {
	s.Lock()
	defer s.Unlock()
	if s.of == nil {
		s.of = map[string]wire.File{}
	}
	s.of[path] = f
}

func (s *sums) forget(path string) {
	s.Lock()
	defer s.Unlock()
	delete(s.of, path)
}

// linked is told that to is another name of from.
func (s *sums) linked(from, to string) {
	s.Lock()
	defer s.Unlock()
	if f, ok := s.of[from]; ok {
		s.of[to] = f
	}
}

// take removes what is known of the files in dir and returns it, each under its name in dir.
func (s *sums) take(dir string, fs vfs.FS) (files []wire.File) {
	dir = fs.PathDir(fs.PathJoin(dir, "x")) // as the paths are spelled
	s.Lock()
	defer s.Unlock()
	for path, f := range s.of {
		if fs.PathDir(path) == dir {
			f.Name = fs.PathBase(path)
			files = append(files, f)
			delete(s.of, path)
		}
	}
	return files
}

// isTable reports whether a file is one whose sum is kept.
func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }

// summedFile sums up what is written, from the beginning to the end, and notes the sum when it is closed. Pebble writes a table by its
// blocks; they are gathered here, so that the system is called for a piece of writeBuffer bytes.
type summedFile struct {
	vfs.File
	sums   *sums
	path   string
	hash   *xxh3.Hasher
	size   uint64
	broken bool // written in another way, or not as a whole
	buf    *[]byte
}

// writeBuffer is less than the end of a file that a vfs.NewSyncingFile does not ask to be synced yet.
const writeBuffer = 128 << 10

var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, writeBuffer); return &b }}

// Write implements vfs.File.
func (f *summedFile) Write(b []byte) (int, error) {
	if f.buf == nil {
		f.buf = writeBuffers.Get().(*[]byte)
	}
	if len(*f.buf)+len(b) > writeBuffer {
		if err := f.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) > writeBuffer {
		return f.write(b)
	}
	*f.buf = append(*f.buf, b...)
	return len(b), nil
}

// flush writes what was gathered.
func (f *summedFile) flush() error {
	if f.buf == nil || len(*f.buf) == 0 {
		return nil
	}
	_, err := f.write(*f.buf)
	*f.buf = (*f.buf)[:0] // a write that failed is not tried again: the table is given up
	return err
}

func (f *summedFile) write(b []byte) (int, error) {
	_, _ = f.hash.Write(b) // never fails; a vfs.File may change b
	n, err := f.File.Write(b)
	f.size += uint64(n)
	f.broken = f.broken || err != nil || n != len(b)
	return n, err
}

// WriteAt implements vfs.File.
func (f *summedFile) WriteAt(b []byte, at int64) (int, error) {
	f.broken = true
	if err := f.flush(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, at)
}

// Sync implements vfs.File.
func (f *summedFile) Sync() error { return errors.Join(f.flush(), f.File.Sync()) }

// SyncData implements vfs.File.
func (f *summedFile) SyncData() error { return errors.Join(f.flush(), f.File.SyncData()) }

// Close implements vfs.File.
func (f *summedFile) Close() error {
	err := errors.Join(f.flush(), f.File.Close())
	if f.buf != nil {
		writeBuffers.Put(f.buf)
		f.buf = nil
	}
	if err == nil && !f.broken {
		f.sums.note(f.path, wire.File{Size: f.size, Sum: f.hash.Sum128().Bytes()})
	}
	return err
}

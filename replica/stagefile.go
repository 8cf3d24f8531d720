package replica

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/wire"
)

// store writes a chunk at its place. The link has checked that it is the next one.
func (s *staging) store(c wire.Chunk) error {
	f := s.manifest.Files[c.File]
	if s.current != int64(c.File) {
		if err := s.finish(false); err != nil {
			return err
		}
		file, err := s.fs.OpenReadWrite(s.path(f.Name), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		s.files().begin(file, s.path(f.Name), int64(c.From))
		s.current = int64(c.File)
	}
	h := s.hashes[c.File]
	if h == nil {
		h = xxh3.New()
		s.hashes[c.File] = h
	}
	h.Write(c.Data)
	if !s.files().write(c.Data) {
		return s.settle()
	}
	if c.From+uint64(len(c.Data)) < f.Size {
		return nil
	}
	delete(s.hashes, c.File)
	whole := h.Sum128().Bytes() == f.Sum
	if !whole {
		s.bad = append(s.bad, c.File)
	}
	return s.finish(whole)
}

// noFile is the current file while there is none.
const noFile = -1

// files is the writer.
func (s *staging) files() *fileWriter {
	if s.writer == nil {
		s.writer = newFileWriter(s.fs, s.block)
	}
	return s.writer
}

// finish ends with the current file, if there is one, and has it made durable if it is whole, in the background.
func (s *staging) finish(whole bool) error {
	s.current = noFile
	if s.writer == nil || s.writer.finish(whole) {
		return nil
	}
	return s.settle()
}

// settle waits until everything is written, and every whole file durable. The current file is closed.
func (s *staging) settle() error {
	s.current = noFile
	if s.writer == nil {
		return nil
	}
	err := s.writer.end()
	s.writer = nil
	return err
}

// verify ends a round of fetching: damaged files are removed and wanted again; without any, everything in filesDir is as the
// manifest says, and durable but for the directories.
func (s *staging) verify() ([]wire.Want, error) {
	if err := s.settle(); err != nil {
		return nil, err
	}
	var wants []wire.Want
	for _, i := range s.bad {
		if err := s.fs.Remove(s.path(s.manifest.Files[i].Name)); err != nil {
			return nil, err
		}
		wants = append(wants, wire.Want{File: i})
	}
	s.bad = nil
	return wants, nil
}

// seal makes the directories of a complete snapshot durable, before it is loaded.
func (s *staging) seal() error {
	all := map[string]struct{}{s.dir: {}, s.filesDir(): {}}
	for dir := range s.dirs {
		for ; len(dir) > len(s.filesDir()); dir = s.fs.PathDir(dir) {
			all[dir] = struct{}{}
		}
	}
	var err error
	for dir := range all {
		err = errors.Join(err, safefile.SyncDir(s.fs, dir))
	}
	return err
}

// close ends the use, so that a later session may go on. What was written of an unfinished file stays.
func (s *staging) close() error { return s.settle() }

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
	if s.file == nil || s.current != c.File {
		if err := s.closeFile(); err != nil {
			return err
		}
		file, err := s.fs.OpenReadWrite(s.path(f.Name), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		s.file, s.current = file, c.File
	}
	h := s.hashes[c.File]
	if h == nil {
		h = xxh3.New()
		s.hashes[c.File] = h
	}
	h.Write(c.Data)
	if _, err := s.file.WriteAt(c.Data, int64(c.From)); err != nil {
		return err
	}
	if c.From+uint64(len(c.Data)) < f.Size {
		return nil
	}
	delete(s.hashes, c.File)
	if h.Sum128().Bytes() != f.Sum {
		s.bad = append(s.bad, c.File)
		return s.closeFile()
	}
	file := s.file
	s.file = nil
	return s.sync(file, s.path(f.Name))
}

// sync has a whole file made durable and closed, in the background.
func (s *staging) sync(file vfs.File, path string) error {
	if s.syncer == nil {
		s.syncer = newSyncer(s.fs)
	}
	if s.syncer.add(file, path) {
		return nil
	}
	return errors.Join(s.settle(), file.Close())
}

// settle waits until every whole file is durable.
func (s *staging) settle() error {
	if s.syncer == nil {
		return nil
	}
	err := s.syncer.end()
	s.syncer = nil
	return err
}

func (s *staging) closeFile() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// verify ends a round of fetching: damaged files are removed and wanted again; without any, everything in filesDir is as the
// manifest says, and durable but for the directories.
func (s *staging) verify() ([]wire.Want, error) {
	if err := errors.Join(s.closeFile(), s.settle()); err != nil {
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
func (s *staging) close() error { return errors.Join(s.closeFile(), s.settle()) }

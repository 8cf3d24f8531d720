package replica

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/wire"
)

// The staging directory of a shard:
//
//	<shard>/staging/PROGRESS   which snapshot is being fetched: its id and manifest
//	<shard>/staging/files/...  its files, whole or in part
//
// PROGRESS is written before the first byte of a snapshot and never changed: how far the transfer is, the lengths of
// the files tell. Nothing in it is believed after a restart before it has been read and hashed again, so unsynced bytes
// that a power loss took cost their transfer and no more.
const (
	stagingDir   = "staging"
	stagingFiles = "files"
	progressName = "PROGRESS"
)

// progressFile is PROGRESS.
type progressFile struct {
	Snapshot string         `json:"snapshot"`
	Position string         `json:"position"` // for people
	Files    []progressItem `json:"files"`
}

type progressItem struct {
	Name string `json:"name"`
	Size uint64 `json:"size"`
	Sum  string `json:"sum"`
}

// staging is one shard's snapshot in the making. One goroutine uses it.
type staging struct {
	fs       vfs.FS
	dir      string
	stopped  func() error // why the work is to end, or nil; asked between two pieces of it
	manifest *wire.Manifest
	hashes   map[uint32]*xxh3.Hasher // of files that are there in part
	bad      []uint32                // arrived whole, with another checksum
	current  int64                   // index of the file that is being written, or noFile
	dirs     map[string]struct{}     // that hold files, to be synced
	writer   *fileWriter             // of the files; nil without one
	block    int                     // what it writes at once, in bytes
}

// stagedSnapshot tells which snapshot a shard's staging directory has a part of, for HELLO. It is the zero ID if there
// is none, or if it cannot be read: that costs a transfer, not the start.
func stagedSnapshot(fs vfs.FS, shardDir string) wire.ID {
	p, err := readProgress(fs, fs.PathJoin(shardDir, stagingDir))
	if err != nil {
		return wire.ID{}
	}
	var id wire.ID
	if b, err := hex.DecodeString(p.Snapshot); err == nil && len(b) == len(id) {
		copy(id[:], b)
	}
	return id
}

// discardStaging removes the staging directory.
func discardStaging(fs vfs.FS, shardDir string) error {
	err := fs.RemoveAll(fs.PathJoin(shardDir, stagingDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func readProgress(fs vfs.FS, dir string) (p progressFile, err error) {
	b, err := safefile.Read(fs, dir, progressName)
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(b, &p)
}

// openStaging compares what an earlier session left with the manifest, keeps what is of use, and returns what is wanted.
// Files of another snapshot are of use too, if name, length and checksum agree: snapshots of one shard share most files.
func openStaging(fs vfs.FS, shardDir string, at wire.Position, m *wire.Manifest, block int, stopped func() error) (*staging, []wire.Want, error) {
	s := &staging{
		fs: fs, dir: fs.PathJoin(shardDir, stagingDir), stopped: stopped, manifest: m, block: block,
		hashes: map[uint32]*xxh3.Hasher{}, current: noFile, dirs: map[string]struct{}{},
	}
	before := map[string]progressItem{}
	old, err := readProgress(fs, s.dir)
	if err == nil {
		for _, f := range old.Files {
			before[f.Name] = f
		}
	}
	now := progressFile{Snapshot: hex.EncodeToString(m.Snapshot[:]), Position: at.String()}
	keep := map[string]struct{}{}
	for _, f := range m.Files {
		item := progressItem{Name: f.Name, Size: f.Size, Sum: hex.EncodeToString(f.Sum[:])}
		now.Files = append(now.Files, item)
		if before[f.Name] == item {
			keep[f.Name] = struct{}{}
		}
	}
	if err := s.prune("", keep); err != nil {
		return nil, nil, err
	}
	if err := fs.MkdirAll(s.filesDir(), 0o755); err != nil {
		return nil, nil, err
	}
	b, err := json.MarshalIndent(now, "", " ")
	if err == nil {
		err = safefile.Write(fs, s.dir, progressName, b)
	}
	if err == nil {
		err = safefile.SyncDir(fs, shardDir)
	}
	if err != nil {
		return nil, nil, err
	}
	wants, err := s.compare()
	if err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return s, wants, nil
}

func (s *staging) filesDir() string { return s.fs.PathJoin(s.dir, stagingFiles) }

func (s *staging) path(name string) string {
	return s.fs.PathJoin(append([]string{s.filesDir()}, strings.Split(name, "/")...)...)
}

// prune removes the staged files whose names are not in keep.
func (s *staging) prune(prefix string, keep map[string]struct{}) error {
	dir := s.filesDir()
	if prefix != "" {
		dir = s.path(strings.TrimSuffix(prefix, "/"))
	}
	names, err := s.fs.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		path := s.fs.PathJoin(dir, n)
		info, err := s.fs.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = s.prune(prefix+n+"/", keep)
		} else if _, ok := keep[prefix+n]; !ok {
			err = s.fs.Remove(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compare hashes what is staged and returns what is missing. Whole files with another checksum begin again.
func (s *staging) compare() ([]wire.Want, error) {
	var wants []wire.Want
	buf := make([]byte, 256<<10)
	for i, f := range s.manifest.Files {
		path := s.path(f.Name)
		dir := s.fs.PathDir(path)
		if _, made := s.dirs[dir]; !made {
			if err := s.fs.MkdirAll(dir, 0o755); err != nil {
				return nil, err
			}
			s.dirs[dir] = struct{}{}
		}
		have, h, err := s.hash(path, buf)
		if err != nil {
			return nil, err
		}
		if have > f.Size || have == f.Size && h.Sum128().Bytes() != f.Sum {
			if have > 0 {
				if err := s.fs.Remove(path); err != nil {
					return nil, err
				}
			}
			if f.Size == 0 && have == 0 {
				return nil, fmt.Errorf("the empty file %s of the manifest has checksum %x", f.Name, f.Sum)
			}
			have, h = 0, xxh3.New()
		}
		if f.Size == 0 {
			empty, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
			if err == nil {
				err = errors.Join(empty.Sync(), empty.Close())
			}
			if err != nil {
				return nil, err
			}
		}
		switch {
		case have < f.Size:
			s.hashes[uint32(i)] = h
			wants = append(wants, wire.Want{File: uint32(i), From: have})
		case f.Size > 0:
			// Who wrote it may have been killed before it was synced.
			file, err := s.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
			if err == nil && !s.files().sync(file, path) {
				err = s.settle()
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return wants, s.settle()
}

// hash reads a staged file as far as it goes.
func (s *staging) hash(path string, buf []byte) (uint64, *xxh3.Hasher, error) {
	h := xxh3.New()
	f, err := s.fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, h, nil
	}
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	var n uint64
	for {
		if err := s.stopped(); err != nil {
			return 0, nil, err
		}
		k, err := f.Read(buf)
		h.Write(buf[:k])
		n += uint64(k)
		if err == io.EOF {
			return n, h, nil
		}
		if err != nil {
			return 0, nil, err
		}
	}
}

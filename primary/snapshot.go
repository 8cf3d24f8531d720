package primary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/wire"
)

const (
	snapshotManifest = "manifest.json"
	snapshotFiles    = "files"
	snapshotFormat   = 1
	unfinished       = ".tmp"
)

// snapshot is a checkpoint of a shard on its way to replicas: dir/files holds it, dir/manifest.json describes it. What
// stands below the channels is set before they are closed and never changes afterwards.
type snapshot struct {
	id  wire.ID
	dir string

	taken    chan struct{} // the checkpoint exists, or failed
	at       wire.Position // valid after taken
	ready    chan struct{} // its files are summed up and it can be served, or it failed
	manifest wire.Manifest // valid after ready
	err      error         // valid after ready; a checkpoint that failed closes ready first

	// What follows is guarded by snapshots.mu.
	pin  uint64        // the log is kept from here on: not beyond at
	refs int           // sessions that use it
	idle time.Duration // since when there are none
	bad  bool          // not for new sessions: it failed, or is damaged
}

// failed is why the snapshot cannot be used, as far as that is known now.
func (s *snapshot) failed() error {
	select {
	case <-s.ready:
		return s.err
	default:
		return nil
	}
}

// file opens one of the files.
func (s *snapshot) file(fs vfs.FS, name string) (vfs.File, error) {
	return fs.Open(s.path(fs, name))
}

func (s *snapshot) path(fs vfs.FS, name string) string {
	return fs.PathJoin(append([]string{s.dir, snapshotFiles}, strings.Split(name, "/")...)...)
}

// intact compares a file with what the manifest says of it.
func (s *snapshot) intact(ctx context.Context, fs vfs.FS, file wire.File) error {
	size, sum, err := digest(ctx, fs, s.path(fs, file.Name))
	if err != nil {
		return err
	}
	if size != file.Size || sum != file.Sum {
		return fmt.Errorf("%w: %s is damaged on the primary's disk: %d bytes with sum %x, it had %d with %x when it was made",
			errSnapshot, s.path(fs, file.Name), size, sum, file.Size, file.Sum)
	}
	return nil
}

// digest reads a file through once, in pieces.
func digest(ctx context.Context, fs vfs.FS, path string) (size uint64, sum [16]byte, err error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return 0, sum, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, sum, err
	}
	h := xxh3.New()
	buf := make([]byte, min(info.Size()+1, 1<<20)) // most files of a small shard are far smaller
	for {
		if err := ctx.Err(); err != nil {
			return 0, sum, err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n]) // never fails
		size += uint64(n)
		if errors.Is(err, io.EOF) {
			return size, h.Sum128().Bytes(), nil
		}
		if err != nil {
			return 0, sum, err
		}
	}
}

// describe lists the files below dir/files with their sizes and sums, ordered by name. It reads those that are not known.
func describe(ctx context.Context, fs vfs.FS, id wire.ID, dir string, known []wire.File) (wire.Manifest, error) {
	m := wire.Manifest{Snapshot: id}
	have := make(map[string]wire.File, len(known))
	for _, f := range known {
		have[f.Name] = f
	}
	var walk func(dir, prefix string) error
	walk = func(dir, prefix string) error {
		names, err := fs.List(dir)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range names {
			path := fs.PathJoin(dir, name)
			info, err := fs.Stat(path)
			if err != nil {
				return err
			}
			if info.IsDir() {
				if err := walk(path, prefix+name+"/"); err != nil {
					return err
				}
				continue
			}
			f, ok := have[prefix+name]
			if ok && int64(f.Size) == info.Size() {
				m.Files = append(m.Files, f)
				continue
			}
			f = wire.File{Name: prefix + name}
			if f.Size, f.Sum, err = digest(ctx, fs, path); err != nil {
				return err
			}
			m.Files = append(m.Files, f)
		}
		return nil
	}
	return m, walk(fs.PathJoin(dir, snapshotFiles), "")
}

// saved is manifest.json: what of a snapshot outlives the process.
type saved struct {
	Format     int         `json:"format"`
	ID         string      `json:"id"`
	Generation string      `json:"generation"`
	Offset     uint64      `json:"offset"`
	Files      []savedFile `json:"files"`
}

type savedFile struct {
	Name string `json:"name"`
	Size uint64 `json:"size"`
	Sum  string `json:"xxh3_128"`
}

func (s *snapshot) save(fs vfs.FS, dir string) error {
	out := saved{Format: snapshotFormat, ID: s.id.String(), Generation: s.at.Generation.String(), Offset: s.at.Offset}
	for _, f := range s.manifest.Files {
		out.Files = append(out.Files, savedFile{Name: f.Name, Size: f.Size, Sum: fmt.Sprintf("%x", f.Sum)})
	}
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		return err
	}
	return safefile.Write(fs, dir, snapshotManifest, b)
}

// load reads a snapshot that an earlier process made. Its files must be there with their sizes; their sums are checked
// by whoever fetches them.
func load(fs vfs.FS, dir string) (*snapshot, error) {
	b, err := safefile.Read(fs, dir, snapshotManifest)
	if err != nil {
		return nil, err
	}
	var in saved
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, err
	}
	if in.Format != snapshotFormat {
		return nil, fmt.Errorf("format %d, this version reads %d", in.Format, snapshotFormat)
	}
	s := &snapshot{dir: dir, taken: make(chan struct{}), ready: make(chan struct{})}
	if s.id, err = parseID(in.ID); err != nil {
		return nil, err
	}
	if s.at.Generation, err = wire.ParseGeneration(in.Generation); err != nil {
		return nil, err
	}
	s.at.Offset, s.pin = in.Offset, in.Offset
	s.manifest.Snapshot = s.id
	for _, f := range in.Files {
		sum, err := parseID(f.Sum)
		if err != nil {
			return nil, err
		}
		info, err := fs.Stat(s.path(fs, f.Name))
		if err != nil {
			return nil, err
		}
		if uint64(info.Size()) != f.Size {
			return nil, fmt.Errorf("%s has %d bytes, it had %d", f.Name, info.Size(), f.Size)
		}
		s.manifest.Files = append(s.manifest.Files, wire.File{Name: f.Name, Size: f.Size, Sum: [16]byte(sum)})
	}
	close(s.taken)
	close(s.ready)
	return s, nil
}

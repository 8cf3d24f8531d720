package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/internal/shard"
)

// saveSurplus writes the frames of a shard's log from an offset on to
//
//	<dir>/surplus/shard-000-<generation>-<first>-<next>.frames
//
// as they are: whole frames, one behind the other. A primary that lost its unsynced tail in a power loss has a history
// that ends where these begin; a full sync replaces them here. Where the log does not reach back that far, or the offset
// lies inside a frame, the file begins at the nearest frame that there is, and the log line says so.
func saveSurplus(fs vfs.FS, root string, logger hclog.Logger, s Shard, from uint64) error {
	sh, ok := s.(*shard.Shard)
	if !ok {
		return fmt.Errorf("shard %d has no log", s.ID())
	}
	log, at := sh.Log(), sh.Position()
	first := max(from, log.Bounds().Oldest)
	for first > log.Bounds().Oldest {
		aligned, err := log.Boundary(first)
		if err != nil {
			return err
		}
		if aligned {
			break
		}
		first-- // frames are small beside what is at stake, and this happens once in a power loss
	}
	dir := fs.PathJoin(root, "surplus")
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := fs.PathJoin(dir, fmt.Sprintf("shard-%03d-%s-%d-%d.frames", s.ID(), at.Generation, first, at.Offset))
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	r, err := log.NewReader(first)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	defer r.Close()
	for next := first; next < at.Offset && err == nil; {
		run, readErr := r.Next(context.Background(), 1<<20)
		if err = readErr; err == nil {
			// A copy: a file may change what it is given, and the log's slabs belong to everybody.
			_, err = f.Write(append([]byte(nil), run.Bytes...))
			next = run.Next
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = errors.Join(safefile.SyncDir(fs, dir), safefile.SyncDir(fs, root))
	}
	if err == nil {
		logger.Warn("saved the mutations that the primary lost", "shard", s.ID(), "file", name, "first", first, "asked", from, "next", at.Offset)
	}
	return err
}

package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/internal/polite"
	"github.com/understudy-kv/understudy/wire"
)

// Checkpoint makes dir, which must not exist, a store of its own that holds everything applied before the call, by hard
// links where the file system has them. Writes go on meanwhile. The position returned is the one that the checkpoint
// itself holds: it was opened and read. Afterwards dir contains only files that are never changed again, so they can be
// shipped as they are and opened with [Open] elsewhere.
func (e *Engine) Checkpoint(dir string) (wire.Position, error) {
	pos, _, err := e.CheckpointSummed(dir)
	return pos, err
}

// CheckpointSummed is [Engine.Checkpoint], and tells what it knows of the files by itself: size and XXH3-128 sum of those
// whose writing it has seen. They are named relative to dir.
func (e *Engine) CheckpointSummed(dir string) (pos wire.Position, known []wire.File, err error) {
	if err := e.enter(); err != nil {
		return pos, nil, err
	}
	defer e.exit()
	if err := e.Err(); err != nil {
		return pos, nil, err // a damaged store is not handed on
	}
	release := e.Hurry()
	e.flusher.briefly.Add(1)
	err = e.flush()
	e.flusher.briefly.Add(-1)
	release()
	if err != nil {
		return pos, nil, err
	}
	if err := e.touchManifest(); err != nil {
		return pos, nil, fmt.Errorf("engine: checkpoint of %s: %w", e.dir, err)
	}
	err = e.unlessFenced(func() error { return e.db.Checkpoint(dir) })
	known = e.gate.sums.take(dir, e.o.FS)
	if err != nil {
		return pos, nil, fmt.Errorf("engine: checkpoint of %s to %s: %w", e.dir, dir, err)
	}
	if err := e.dropLogs(dir); err != nil {
		return pos, nil, fmt.Errorf("engine: checkpoint of %s to %s: %w", e.dir, dir, err)
	}
	if pos, err = e.inspect(dir); err != nil {
		return pos, nil, errors.Join(fmt.Errorf("engine: checkpoint %s does not open: %w", dir, err), e.o.FS.RemoveAll(dir))
	}
	return pos, known, nil
}

// dropLogs removes the write-ahead logs that Pebble copied. Without a log it still makes one a store, and leaves it empty.
func (e *Engine) dropLogs(dir string) error {
	names, err := e.o.FS.List(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".log") {
			if err := e.o.FS.Remove(e.o.FS.PathJoin(dir, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// inspect opens a checkpoint for reading and returns its position. It leaves no file behind.
func (e *Engine) inspect(dir string) (wire.Position, error) {
	p := pebbleOptions(e.o, e.o.FS, polite.Worker{})
	p.ReadOnly, p.ErrorIfNotExists = true, true
	h := newHealth(dir, e.o, newGate(e.o.FS, dir, nil))
	h.onError = func(err error) { e.health.fail(errors.Unwrap(err)) } // its files are the engine's own
	p.Logger, p.EventListener = h, h.listener(func(pebble.FlushInfo) {}, func(pebble.CompactionInfo) {}, func(pebble.TableIngestInfo) {})
	db, err := pebble.Open(dir, p)
	if err != nil {
		return wire.Position{}, err
	}
	pos, err := readPosition(db, nil)
	err = errors.Join(err, db.Close())
	if rerr := e.o.FS.Remove(e.o.FS.PathJoin(dir, "LOCK")); rerr != nil && !oserror.IsNotExist(rerr) {
		err = errors.Join(err, rerr)
	}
	return pos, err
}

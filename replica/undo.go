package replica

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// rewinder is a [Shard] that can rejoin by difference; *shard.Shard is one. Others are synced in full.
type rewinder interface {
	// CanRewind reports whether Rewind could work now.
	CanRewind() bool
	// Settles is the position from which on the data is whole, zero if it is.
	Settles() wire.Position
	// Touched lists the keys that the mutations from an offset on touched, ascending; it fails with shard.ErrCannotRewind
	// if those have more than limit bytes, or cannot be undone key by key.
	Touched(from uint64, limit int64) ([][]byte, error)
	// Rewind goes back to the fork, with the values that the primary of the lineage had at the position settles. On error
	// the old data, position and lineage stay, or the shard takes no frames any more.
	Rewind(fork, settles wire.Position, l wire.Lineage, values func(func(wire.Frame) error) error) error
}

const (
	// valuesFile holds values frames, one behind the other, in the staging directory. It is of use to one session only.
	valuesFile = "values"
	// wantRun is the payload of a WANT-KEYS, about, and wantAhead how much may wait to be written, in bytes.
	wantRun   = 64 << 10
	wantAhead = 512 << 10
)

// undoing is what a session has that undoes a surplus. One goroutine uses it.
type undoing struct {
	fs   vfs.FS
	path string
	keys [][]byte // that were asked for
	next int      // keys[next:] were not answered yet
	file vfs.File // nil once everything is there
	size int64
}

// list reads from the shard's log which keys the mutations from the offset on touched, and asks the primary for them.
func (s *session) list(from uint64) error {
	sh, fs := s.r.shard(), s.r.f.opts.FS
	keys, err := sh.(rewinder).Touched(from, s.r.f.opts.SurplusLimit)
	if errors.Is(err, shard.ErrCannotRewind) {
		return fmt.Errorf("%w: %w", ErrCannotUndo, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRewind, err)
	}
	dir := fs.PathJoin(sh.Dir(), stagingDir)
	u := &undoing{fs: fs, path: fs.PathJoin(dir, valuesFile), keys: keys}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("%w: %w", ErrStaging, err)
	}
	if u.file, err = fs.Create(u.path, vfs.WriteCategoryUnspecified); err != nil {
		return fmt.Errorf("%w: %w", ErrStaging, err)
	}
	s.undoing = u
	for w := (wire.WantKeys{}); !w.Last; {
		n, size := 0, 0
		for ; n < len(keys) && size < wantRun; n++ {
			size += 4 + len(keys[n])
		}
		w.Keys, keys = keys[:n], keys[n:]
		w.Last = len(keys) == 0
		if !s.outbox.pushBehind(wire.AppendWantKeys(nil, w), wantAhead, s.done) {
			return nil // the session is ending
		}
	}
	return nil
}

// keep writes values to the file, if they are the answer to what was asked next.
func (u *undoing) keep(f wire.Frame) error {
	for ops := f.Ops(); ops.Next(); u.next++ {
		if u.next == len(u.keys) || !bytes.Equal(ops.Op().Key, u.keys[u.next]) {
			return fmt.Errorf("%w: a value of the key %.64x, which was not asked for next", ErrProtocol, ops.Op().Key)
		}
	}
	// A copy: a file may change what it is given.
	if _, err := u.file.Write(bytes.Clone(f.Raw)); err != nil {
		return fmt.Errorf("%w: %w", ErrStaging, err)
	}
	u.size += int64(len(f.Raw))
	return nil
}

// complete ends the writing.
func (u *undoing) complete() error {
	if u.next != len(u.keys) {
		return fmt.Errorf("%w: of %d keys that were asked for, %d were answered", ErrProtocol, len(u.keys), u.next)
	}
	f := u.file
	u.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("%w: %w", ErrStaging, err)
	}
	return nil
}

// each calls f with every frame that was kept, whose checksums are looked at again.
func (u *undoing) each(f func(wire.Frame) error) error {
	file, err := u.fs.Open(u.path, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	defer file.Close()
	var buf []byte
	for left := u.size; left > 0; {
		buf = append(buf[:0], make([]byte, wire.HeaderSize)...)
		if _, err := io.ReadFull(file, buf); err != nil {
			return err
		}
		h, err := wire.ParseHeader(buf)
		if err != nil {
			return err
		}
		buf = append(buf, make([]byte, h.Size()-wire.HeaderSize)...)
		if _, err := io.ReadFull(file, buf[wire.HeaderSize:]); err != nil {
			return err
		}
		frame, err := wire.ParseFrame(buf)
		if err == nil {
			err = f(frame)
		}
		if err != nil {
			return err
		}
		left -= int64(len(buf))
	}
	return nil
}

// close removes the file.
func (u *undoing) close() error {
	var err error
	if u.file != nil {
		err = u.file.Close()
		u.file = nil
	}
	if removed := u.fs.Remove(u.path); removed != nil && !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return err
}

// undo has the shard go back.
func (s *session) undo(a Action) error {
	if err := s.undoing.complete(); err != nil {
		return err
	}
	if err := s.r.f.goOver(); err != nil {
		return err
	}
	err := s.r.shard().(rewinder).Rewind(a.Position, a.Settles, a.Lineage, s.undoing.each)
	if errors.Is(err, shard.ErrCannotRewind) {
		err = fmt.Errorf("%w: %w", ErrCannotUndo, err)
	}
	return err
}

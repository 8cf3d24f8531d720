package backlog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Create makes a log that begins at offset first in Dir, which must hold no segment. It is durable on return.
func Create(o Options, first uint64) (*Log, error) {
	l, segments, synced, err := open(o, true)
	if err != nil {
		return nil, err
	}
	if len(segments) > 0 || synced > first {
		err = fmt.Errorf("backlog: %s holds a log already: open it, or create the new one elsewhere", o.Dir)
		return nil, errors.Join(err, l.abandon())
	}
	l.next.Store(first)
	l.published.Store(first)
	l.durable.Store(first)
	s, err := l.createSegment(first)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("backlog: creating a log in %s: %w", o.Dir, err), l.abandon())
	}
	l.begin([]*segment{s})
	if err := l.settle(); err != nil {
		return nil, errors.Join(fmt.Errorf("backlog: creating a log in %s: %w", o.Dir, err), l.Close())
	}
	return l, nil
}

// Open recovers the log in Dir. It verifies every frame, cuts what a kill or a power loss left unfinished, and refuses
// anything else that is wrong with a [*CorruptError], having changed nothing. Everything that it kept is durable and
// published on return. A directory without segments is ErrNoLog.
func Open(o Options) (*Log, error) {
	l, segments, synced, err := open(o, false)
	if err != nil {
		return nil, err
	}
	if err := l.recover(segments, synced); err != nil {
		return nil, errors.Join(err, l.abandon())
	}
	if err := l.settle(); err != nil {
		return nil, errors.Join(fmt.Errorf("backlog: opening %s: %w", o.Dir, err), l.Close())
	}
	return l, nil
}

// open does what Create and Open share: it checks the options and finds the files.
func open(o Options, create bool) (*Log, []found, uint64, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, nil, 0, err
	}
	l := &Log{o: o}
	l.syncing.done.L = &l.syncing
	l.mu.memory = newMemory(&o)
	l.mu.keep, l.mu.disk = o.Keep, o.Disk
	if create {
		if err := makeDir(o.FS, o.Dir); err != nil {
			return nil, nil, 0, fmt.Errorf("backlog: creating %s: %w", o.Dir, err)
		}
	}
	names, err := o.FS.List(o.Dir)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("backlog: %w", err)
	}
	var segments []found
	for _, name := range names {
		if first, ok := parseSegmentName(name); ok {
			segments = append(segments, found{path: o.FS.PathJoin(o.Dir, name), name: first})
		}
	}
	if !create && len(segments) == 0 {
		return nil, nil, 0, fmt.Errorf("%w: %s", ErrNoLog, o.Dir)
	}
	slices.SortFunc(segments, func(a, b found) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	if l.dir, err = o.FS.OpenDir(o.Dir); err != nil {
		return nil, nil, 0, fmt.Errorf("backlog: %w", err)
	}
	var synced uint64
	if l.mark, synced, err = openWatermark(o.FS, o.Dir); err != nil {
		return nil, nil, 0, errors.Join(fmt.Errorf("backlog: reading what was synced in %s: %w", o.Dir, err), l.dir.Close())
	}
	return l, segments, synced, nil
}

// makeDir makes a directory that survives power loss; its parent must do so already.
func makeDir(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	parent, err := fs.OpenDir(fs.PathDir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// abandon closes what open opened, when there is no log to close.
func (l *Log) abandon() error { return errors.Join(l.mark.file.Close(), l.dir.Close()) }

// recover scans the segments, judges them, and does what the verdict says.
func (l *Log) recover(segments []found, synced uint64) error {
	o := &l.o
	if err := scanAll(o.FS, segments, o.Shard); err != nil {
		return fmt.Errorf("backlog: reading %s: %w", o.Dir, err)
	}
	v := decideRecovery(segments, synced, o.PowerLost)
	if v.corrupt != nil {
		return v.corrupt
	}
	r := Recovery{Next: v.next, Synced: synced}
	for i := len(segments) - 1; i >= v.keep; i-- { // newest first: what a kill leaves of this is judged the same again
		o.Logger.Warn("dropping a segment behind what a power loss left", "file", segments[i].path, "offset", v.next)
		if err := removeIfThere(o.FS, segments[i].path); err != nil {
			return fmt.Errorf("backlog: dropping a segment that a power loss cut off: %w", err)
		}
		r.Dropped = append(r.Dropped, segments[i].path)
	}
	kept := make([]*segment, v.keep)
	for i, f := range segments[:v.keep] {
		kept[i] = &segment{path: f.path, first: f.name, next: f.next, size: f.good, index: f.index, sealed: true}
	}
	last := kept[len(kept)-1]
	file, err := o.FS.OpenReadWrite(last.path, category)
	if err != nil {
		return fmt.Errorf("backlog: %w", err)
	}
	last.file, last.sealed = file, false
	if v.cut {
		f := segments[v.keep-1]
		r.CutFile, r.CutBytes = f.path, f.size-f.good
		o.Logger.Warn("cutting the tail of a segment", "file", f.path, "byte", f.good, "bytes", r.CutBytes, "offset", v.next, "reason", f.fault.reason)
		if err := cutBack(file, f.good); err != nil {
			return errors.Join(fmt.Errorf("backlog: cutting the tail of %s: %w", f.path, err), file.Close())
		}
	}
	if err := l.openDirty(kept, synced); err != nil {
		return errors.Join(fmt.Errorf("backlog: %w", err), file.Close())
	}
	l.recovered = r
	l.next.Store(v.next)
	l.published.Store(v.next)
	l.begin(kept)
	return nil
}

// openDirty opens the segments that hold something which nobody is known to have synced, so that settle syncs it.
func (l *Log) openDirty(kept []*segment, synced uint64) error {
	for i, s := range kept {
		s.dirty = s.next > synced || !s.sealed
		if !s.dirty || !s.sealed {
			continue
		}
		f, err := l.o.FS.OpenReadWrite(s.path, category)
		if err != nil {
			for _, s := range kept[:i] {
				if s.dirty {
					err = errors.Join(err, s.file.Close())
				}
			}
			return err
		}
		s.file = f
	}
	return nil
}

// begin makes the segments, at least one, the log's. The last one is active.
func (l *Log) begin(segments []*segment) {
	for i, s := range segments[1:] {
		s.base = segments[i].end()
	}
	l.appending.active = segments[len(segments)-1]
	l.mu.segments = segments
	l.mu.dirDirty = true
}

// settle makes everything that the log begins with durable, and says so in the watermark.
func (l *Log) settle() error {
	if err := removeIfThere(l.o.FS, l.o.FS.PathJoin(l.o.Dir, tempName)); err != nil {
		return err
	}
	l.syncing.Lock()
	l.syncing.running = true
	l.syncing.Unlock()
	err := l.syncOnce()
	if err == nil {
		err = l.mark.write(l.durable.Load(), true)
	}
	l.syncing.Lock()
	l.syncing.running = false
	l.syncing.Unlock()
	return err
}

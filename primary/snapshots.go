package primary

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/wire"
)

// shareLimit is how much log a joiner may have to be sent behind a snapshot that is already there; past it, it gets one
// of its own. Taking a checkpoint costs a flush, and reading every file that an earlier process wrote.
const shareLimit = 64 << 20

// snapshots are one shard's, in dir. A snapshot lives while a session or a slot uses it, then for the reconnect window,
// and no longer than the log reaches back to it.
type snapshots struct {
	shard Shard
	fs    vfs.FS
	dir   string
	log   hclog.Logger
	now   func() time.Duration
	ctx   context.Context // of the server: ends the work on new snapshots
	wg    sync.WaitGroup  // of the goroutines that make them

	mu struct {
		sync.Mutex
		list []*snapshot
	}
}

// reload takes in what an earlier process left: snapshots that a slot still uses and the log still reaches are gone on
// with, everything else is removed. It is called before the first session.
func (m *snapshots) reload(uses func(wire.ID) bool) error {
	names, err := m.fs.List(m.dir)
	if err != nil {
		if _, missing := m.fs.Stat(m.dir); missing != nil {
			return nil
		}
		return err
	}
	for _, name := range names {
		dir := m.fs.PathJoin(m.dir, name)
		var s *snapshot
		why := errors.New("it was not finished")
		if !strings.HasSuffix(name, unfinished) {
			s, why = load(m.fs, dir)
		}
		if why == nil && !uses(s.id) {
			why = errors.New("no slot uses it")
		}
		if why == nil {
			m.mu.Lock()
			why = m.usableLocked(s)
			m.mu.Unlock()
		}
		if why != nil {
			m.log.Info("old snapshot removed", "dir", dir, "reason", why)
			if err := m.fs.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		s.idle = m.now()
		m.log.Info("snapshot of an earlier process can be gone on with", "snapshot", s.id, "position", s.at)
		m.mu.Lock()
		m.mu.list = append(m.mu.list, s)
		m.mu.Unlock()
	}
	return nil
}

// usableLocked says why a snapshot cannot begin a session now, or nil. One that is being made can.
func (m *snapshots) usableLocked(s *snapshot) error {
	if s.bad {
		return fmt.Errorf("%w: it failed", errSnapshot)
	}
	if oldest := m.shard.Log().Bounds().Oldest; oldest > s.pin {
		return fmt.Errorf("%w: the log begins at %d, the snapshot is at %d", errLostSync, oldest, s.pin)
	}
	select {
	case <-s.taken:
		if !m.shard.Lineage().Contains(s.at, m.shard.Log().Published()) {
			return fmt.Errorf("%w: %s is not on the lineage", errSnapshot, s.at)
		}
	default:
	}
	return nil
}

// start is where a session would stream from if it began a full sync now, or an offset before that: the snapshot that
// it names, if it can be gone on with and does not lie before least, else the shard's present position.
func (m *snapshots) start(want wire.ID, least uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.findLocked(want, least); s != nil {
		return s.pin
	}
	return m.shard.Position().Offset
}

func (m *snapshots) findLocked(id wire.ID, least uint64) *snapshot {
	for _, s := range m.mu.list {
		if s.id == id && s.pin >= least && m.usableLocked(s) == nil {
			return s
		}
	}
	return nil
}

// acquire returns the snapshot that the session fetches: the one it began with, one that others fetch, or a new one,
// whose making goes on in the background. It does not lie before least, which the shard has reached. release must follow.
func (m *snapshots) acquire(want wire.ID, least uint64) *snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.findLocked(want, least)
	for i := len(m.mu.list) - 1; s == nil && i >= 0; i-- {
		if c := m.mu.list[i]; c.pin >= least && m.usableLocked(c) == nil && m.shard.Log().BytesFrom(c.pin) <= shareLimit {
			s = c
		}
	}
	if s == nil {
		s = &snapshot{taken: make(chan struct{}), ready: make(chan struct{}), pin: m.shard.Position().Offset}
		rand.Read(s.id[:]) // never fails: crypto/rand ends the process instead
		s.dir = m.fs.PathJoin(m.dir, s.id.String())
		m.mu.list = append(m.mu.list, s)
		// The maker owns the snapshot's directory until the snapshot is ready or failed, which ends it; close waits for it.
		m.wg.Go(func() { m.make(s) })
	}
	s.refs++
	return s
}

// prepare has a snapshot made, if there is none to be shared: somebody will ask for one soon.
func (m *snapshots) prepare() {
	if m.shard.Settled() && m.shard.Err() == nil {
		m.release(m.acquire(wire.ID{}, 0))
	}
}

func (m *snapshots) release(s *snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.refs--
	s.idle = m.now()
}

// condemn keeps new sessions from a snapshot; it is removed when the last one has left.
func (m *snapshots) condemn(s *snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.bad = true
}

// lost says whether the log no longer reaches back to the snapshot.
func (m *snapshots) lost(s *snapshot) error {
	if oldest := m.shard.Log().Bounds().Oldest; oldest > s.at.Offset {
		return fmt.Errorf("%w: it begins at %d, the snapshot is at %d; raise --backlog-disk, or sync when less is written", errLostSync, oldest, s.at.Offset)
	}
	return nil
}

// make takes the checkpoint, sums up those of its files whose sums are not known, and puts both in place.
func (m *snapshots) make(s *snapshot) {
	defer quiet(m.shard)()
	began := time.Now()
	tmp := s.dir + unfinished
	var known []wire.File
	err := m.fs.MkdirAll(tmp, 0o755)
	if err == nil {
		s.at, known, err = checkpoint(m.shard, m.fs.PathJoin(tmp, snapshotFiles))
	}
	if err == nil && s.at.Offset < s.pin {
		err = fmt.Errorf("the checkpoint is at %s, before offset %d at which it was asked for", s.at, s.pin)
	}
	if err != nil {
		m.fail(s, tmp, err)
		close(s.taken)
		return
	}
	m.mu.Lock()
	s.pin = s.at.Offset
	m.mu.Unlock()
	close(s.taken)

	s.manifest, err = describe(m.ctx, m.fs, s.id, tmp, known)
	if err == nil {
		err = s.save(m.fs, tmp)
	}
	if err == nil {
		err = m.fs.Rename(tmp, s.dir)
	}
	if err == nil {
		err = safefile.SyncDir(m.fs, m.dir)
	}
	if err != nil {
		m.fail(s, tmp, err)
		return
	}
	m.log.Info("snapshot made", "snapshot", s.id, "position", s.at, "files", len(s.manifest.Files), "bytes", s.manifest.Bytes(),
		"took", time.Since(began).Round(time.Millisecond))
	close(s.ready)
}

func (m *snapshots) fail(s *snapshot, tmp string, err error) {
	s.err = fmt.Errorf("%w: %w", errSnapshot, err)
	if m.ctx.Err() == nil {
		m.log.Error("snapshot failed", "snapshot", s.id, "error", err)
	}
	m.condemn(s)
	if err := m.fs.RemoveAll(tmp); err != nil {
		m.log.Error("failed snapshot could not be removed", "dir", tmp, "error", err)
	}
	close(s.ready)
}

// floor is the lowest offset that a snapshot which sessions use needs. Slots pin the same, but only once their session
// knows its snapshot.
func (m *snapshots) floor() (floor uint64, any bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.mu.list {
		if s.refs > 0 && !s.bad && (!any || s.pin < floor) {
			floor, any = s.pin, true
		}
	}
	return floor, any
}

// sweep removes snapshots that nobody uses: at once if nobody can any more, otherwise after the window.
func (m *snapshots) sweep(window time.Duration, uses func(wire.ID) bool) {
	now := m.now()
	var gone []*snapshot
	m.mu.Lock()
	m.mu.list = slices.DeleteFunc(m.mu.list, func(s *snapshot) bool {
		if s.refs > 0 {
			return false
		}
		select {
		case <-s.ready:
		default:
			return false // its maker is still at it
		}
		if m.usableLocked(s) == nil && (uses(s.id) || now-s.idle < window) {
			return false
		}
		gone = append(gone, s)
		return true
	})
	m.mu.Unlock()
	for _, s := range gone {
		m.log.Info("snapshot removed", "snapshot", s.id)
		if err := m.fs.RemoveAll(s.dir); err != nil {
			m.log.Error("snapshot could not be removed", "dir", s.dir, "error", err)
		}
	}
}

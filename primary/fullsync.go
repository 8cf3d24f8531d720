package primary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/polite"
	"github.com/understudy-kv/understudy/wire"
)

// checkpointTimeout is how long a replica is kept waiting for its FULLSYNC; it would leave after [HandshakeTimeout].
// The checkpoint goes on, and is there when it comes back.
const checkpointTimeout = 8 * time.Second

// chunkSize is how much of a file goes into one chunk frame: what is read, summed up and sent stays in the processor's cache.
const chunkSize = 256 << 10

// progress is how far a full sync is. The feeder writes it, status reads it.
type progress struct {
	began        atomic.Int64 // UnixNano of the first FETCH, 0 before
	first, bytes atomic.Uint64
	total        atomic.Uint64
}

// fullSync ships the snapshot. It returns when the replica has everything and the stream can begin.
func (c *session) fullSync() error {
	defer quiet(c.port.Shard)()
	defer polite.Hurry()()
	snap, err := c.take()
	if err != nil {
		return err
	}
	c.sent.Store(snap.at.Offset)
	c.logger.Info("replica needs a full sync", "reason", c.verdict.Reason, "why", c.verdict.Text, "snapshot", snap.id, "position", snap.at,
		"continued", snap.id == c.hello.Snapshot)
	w := c.welcome(snap.at)
	w.Reason, w.Snapshot = c.verdict.Reason, snap.id
	if err := c.write(wire.AppendWelcome(nil, w)); err != nil {
		return err
	}
	c.due = time.Now().Add(HeartbeatInterval)
	if err := c.await(snap.ready); err != nil {
		return err
	}
	if snap.err != nil {
		return snap.err
	}
	c.progress.total.Store(snap.manifest.Bytes())
	if err := c.write(wire.AppendManifest(nil, snap.manifest)); err != nil {
		return err
	}
	return c.serveFetches(snap)
}

// take waits for the checkpoint and pins the log at its position.
func (c *session) take() (*snapshot, error) {
	snap := c.snapshot
	timeout := time.NewTimer(checkpointTimeout)
	defer timeout.Stop()
	select {
	case <-snap.taken:
	case <-c.ctx.Done():
		return nil, context.Cause(c.ctx)
	case <-timeout.C:
		return nil, fmt.Errorf("%w after %v; try again", errBusy, checkpointTimeout)
	}
	if err := snap.failed(); err != nil {
		return nil, err
	}
	if !c.onLineage() {
		return nil, errRole // the snapshot may be of the new one
	}
	s := c.server
	s.mu.Lock()
	err := s.mu.table.Sync(c.session, snap.id, snap.at.Offset)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return snap, c.port.snapshots.lost(snap)
}

// await waits for something, with heartbeats.
func (c *session) await(done <-chan struct{}) error {
	for {
		select {
		case <-done:
			return nil
		default:
		}
		timer := time.NewTimer(time.Until(c.due))
		select {
		case <-done:
		case <-c.ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		if err := c.alive(); err != nil {
			return err
		}
	}
}

// alive sends the heartbeat that is due, and ends the sync when there is no point in going on.
func (c *session) alive() error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if time.Now().Before(c.due) {
		return nil
	}
	if err := c.port.snapshots.lost(c.snapshot); err != nil {
		return err
	}
	return c.beat()
}

// serveFetches answers one FETCH after the other, each with SNAPSHOT-END behind its chunks, until an empty one says
// that the replica has everything.
func (c *session) serveFetches(snap *snapshot) error {
	again := make(map[uint32]bool) // files that were sent from their first byte
	counted := false
	for {
		fetch, err := c.nextFetch()
		if err != nil {
			return err
		}
		if fetch.Snapshot != snap.id {
			return protocol("a FETCH of snapshot %s, this session is about %s", fetch.Snapshot, snap.id)
		}
		if err := c.expect(snap, fetch); err != nil {
			return err
		}
		if !counted {
			// A replica that leaves at the answer to its HELLO (its other shards are being laid out anew, say) had no full sync.
			c.port.mu.Lock()
			c.port.mu.fullSyncs[string(c.verdict.Reason)]++
			c.port.mu.Unlock()
			counted = true
		}
		for _, w := range fetch.Wants {
			if err := c.recheck(snap, w, again); err != nil {
				return err
			}
			if err := c.sendFile(snap, w); err != nil {
				return err
			}
		}
		if err := c.write(wire.AppendSnapshotEnd(c.out[:0], snap.id)); err != nil {
			return err
		}
		if len(fetch.Wants) == 0 {
			return nil
		}
	}
}

func (c *session) nextFetch() (wire.Fetch, error) {
	for {
		timer := time.NewTimer(time.Until(c.due))
		select {
		case fetch := <-c.fetches:
			timer.Stop()
			return fetch, nil
		case <-c.ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		if err := c.alive(); err != nil {
			return wire.Fetch{}, err
		}
	}
}

// expect checks a FETCH against the manifest and sets the progress at the first one.
func (c *session) expect(snap *snapshot, fetch wire.Fetch) error {
	var left uint64
	for _, w := range fetch.Wants {
		if int64(w.File) >= int64(len(snap.manifest.Files)) || w.From > snap.manifest.Files[w.File].Size {
			return protocol("a FETCH of file %d from byte %d, which the manifest does not have", w.File, w.From)
		}
		left += snap.manifest.Files[w.File].Size - w.From
	}
	if c.progress.began.CompareAndSwap(0, time.Now().UnixNano()) {
		had := snap.manifest.Bytes() - min(left, snap.manifest.Bytes())
		c.progress.first.Store(had)
		c.progress.bytes.Store(had)
	}
	return nil
}

// recheck looks at a file that is fetched a second time from its beginning: if it is the disk here that damaged it, no
// further attempt can help, and the snapshot is given up.
func (c *session) recheck(snap *snapshot, w wire.Want, again map[uint32]bool) error {
	if w.From != 0 {
		return nil
	}
	if !again[w.File] {
		again[w.File] = true
		return nil
	}
	result := make(chan error, 1)
	checked := make(chan struct{})
	// The check reads a whole file; meanwhile heartbeats go on. It ends with the file, or when the session is ended;
	// recheck waits for it either way.
	go func() {
		defer close(checked)
		result <- snap.intact(c.ctx, c.server.opts.FS, snap.manifest.Files[w.File])
	}()
	err := c.await(checked)
	if err != nil {
		c.end(err)
		<-checked
		return err
	}
	if err := <-result; err != nil {
		c.port.snapshots.condemn(snap)
		return err
	}
	return nil
}

// sendFile streams one file from a byte on.
func (c *session) sendFile(snap *snapshot, w wire.Want) error {
	info := snap.manifest.Files[w.File]
	f, err := snap.file(c.server.opts.FS, info.Name)
	if err != nil {
		return fmt.Errorf("%w: %w", errSnapshot, err)
	}
	defer f.Close()
	worker := polite.Worker{Gives: func() bool { return true }} // whoever it is for can wait
	for at := w.From; at < info.Size; {
		if err := c.alive(); err != nil {
			return err
		}
		n := int(min(info.Size-at, chunkSize))
		read := func(b []byte) error {
			if n, err := f.ReadAt(b, int64(at)); n < len(b) {
				if err == nil || errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				c.port.snapshots.condemn(snap)
				return fmt.Errorf("%w: %s at byte %d of %d: %w", errSnapshot, info.Name, at+uint64(n), info.Size, err)
			}
			return nil
		}
		if c.out, err = wire.AppendChunkOf(c.out[:0], w.File, at, n, read); err != nil {
			return err
		}
		if err := c.write(c.out); err != nil {
			return err
		}
		at += uint64(n)
		c.progress.bytes.Add(uint64(n))
		worker.Yield() // one short system call after the other is no wait, either
	}
	return nil
}

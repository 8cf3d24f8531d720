package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// REPL.SNAPSHOT lets a tool compare a shard of two nodes at one identical position, while writes go on:
//
//	replica  HOLD shard ms                         OK: it applies nothing for at most ms milliseconds (60,000)
//	primary  OPEN shard                            [id, position]: a view of what is there now
//	replica  OPEN shard AT position timeout-ms     [id, position]: it goes on, and takes the view when exactly that
//	                                               position is applied; an error if it is past it, or the time is up
//	both     DIGEST id from to limit               [next, count, digest] of the first limit entries of [from, to)
//	both     KEYS id from to limit                 [next, [[entry, kind, key, hash]...]] of the same
//	both     CLOSE id                              OK
//
// HOLD comes first, so that the replica is not past the primary's position by the time it hears of it. The position is
// "generation:offset". from, to and next are engine keys, opaque bytes that order alike on both nodes; "" for from and to
// are the ends, and "" for next says that there is no more. A limit of 0 is none. digest is 32 hex digits: the sum modulo
// 2^128 of the entries' hashes, so equal ranges have equal digests however they were cut. kind is "record" or
// "expiry" (an entry of the expiry index); key is the user's key, and hash is 32 hex digits of the entry's.
//
// A view holds old files back from deletion. So there are at most maxSnapshots, and one that is not used for
// snapshotIdle is closed.
const (
	maxSnapshots  = 64
	snapshotIdle  = 60 * time.Second
	maxHold       = 60 * time.Second
	maxSnapshotIn = 10_000 // entries of one KEYS reply
)

// snapshots are the open views.
type snapshots struct {
	s  *Server
	mu struct {
		sync.Mutex
		byID   map[int64]*snapshot
		last   int64
		closed bool
	}
}

// snapshot is one view. busy is held while it is used: a view is for one goroutine at a time.
type snapshot struct {
	busy   sync.Mutex
	view   *engine.View
	closed bool      // guarded by busy
	used   time.Time // guarded by snapshots.mu
}

var errManySnapshots = fmt.Errorf("there are %d snapshots open already: close some, or wait until they expire", maxSnapshots)

func (n *snapshots) init(s *Server) {
	n.s = s
	n.mu.byID = map[int64]*snapshot{}
}

// add takes a view into the list, or closes it.
func (n *snapshots) add(v *engine.View) (int64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed || len(n.mu.byID) >= maxSnapshots {
		return 0, errors.Join(errManySnapshots, v.Close())
	}
	n.mu.last++
	n.mu.byID[n.mu.last] = &snapshot{view: v, used: time.Now()}
	return n.mu.last, nil
}

func (n *snapshots) get(id int64) *snapshot {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mu.byID[id]
	if s != nil {
		s.used = time.Now()
	}
	return s
}

// take removes a view from the list, which gives its closing to the caller.
func (n *snapshots) take(id int64) *snapshot {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mu.byID[id]
	delete(n.mu.byID, id)
	return s
}

// expire closes the views that were not used for long.
func (n *snapshots) expire(now time.Time) { n.closeUnused(now.Add(-snapshotIdle)) }

// closeAll closes every view and takes no more.
func (n *snapshots) closeAll() {
	n.mu.Lock()
	n.mu.closed = true
	n.mu.Unlock()
	n.closeUnused(time.Now().Add(time.Hour))
}

func (n *snapshots) closeUnused(since time.Time) {
	n.mu.Lock()
	var old []*snapshot
	for id, s := range n.mu.byID {
		if s.used.Before(since) && s.busy.TryLock() {
			old = append(old, s)
			delete(n.mu.byID, id)
		}
	}
	n.mu.Unlock()
	for _, s := range old {
		s.closed = true
		if err := s.view.Close(); err != nil {
			n.s.log.Warn("closing a snapshot", "error", err)
		}
		s.busy.Unlock()
	}
}

// replSnapshot is REPL.SNAPSHOT.
func replSnapshot(c *call) {
	err := errSnapshotSyntax
	n := len(c.args)
	switch {
	case c.is(1, "hold") && n == 4:
		err = snapshotHold(c)
	case c.is(1, "open") && (n == 3 || n == 6 && c.is(3, "at")):
		err = snapshotOpen(c)
	case c.is(1, "digest") && n == 6:
		err = snapshotRange(c, (*snapshotReader).digest)
	case c.is(1, "keys") && n == 6:
		err = snapshotRange(c, (*snapshotReader).keys)
	case c.is(1, "close") && n == 3:
		err = snapshotClose(c)
	}
	if err != nil {
		c.w.Error("ERR " + err.Error())
	}
}

var errSnapshotSyntax = errors.New("syntax error: REPL.SNAPSHOT HOLD shard ms | OPEN shard [AT position timeout-ms] | DIGEST id from to limit | KEYS id from to limit | CLOSE id")

// shard is the shard that argument i names.
func (c *call) shard(i int) (*shard.Shard, error) {
	shards := c.s.ks.Shards()
	id, err := strconv.Atoi(c.arg(i))
	if err != nil || id < 0 || id >= len(shards) {
		return nil, fmt.Errorf("shard %q: this node has the shards 0 to %d", c.arg(i), len(shards)-1)
	}
	return shards[id], nil
}

// number is the non-negative integer that argument i is.
func (c *call) number(i int) (int64, error) {
	n, ok := resp.ParseInt(c.args[i])
	if !ok || n < 0 {
		return 0, fmt.Errorf("%q is not a number", c.arg(i))
	}
	return n, nil
}

func snapshotHold(c *call) error {
	on, err := c.shard(2)
	if err != nil {
		return err
	}
	ms, err := c.number(3)
	if err != nil {
		return err
	}
	on.PauseIngest(min(time.Duration(ms)*time.Millisecond, maxHold))
	c.w.OK()
	return nil
}

func snapshotOpen(c *call) error {
	on, err := c.shard(2)
	if err != nil {
		return err
	}
	var v *engine.View
	var at wire.Position
	take := func(m shard.StateMachine) (err error) {
		v, err = m.(*engine.Engine).NewView()
		return err
	}
	if len(c.args) == 3 {
		if err = on.Use(take); err == nil {
			at, err = v.Position()
			// The engine knows the generation of its last write: none before the first, the one before after a power loss.
			at = on.Lineage().At(at.Offset)
		}
	} else {
		at, err = c.openAt(on, take)
	}
	if err != nil {
		if v != nil {
			err = errors.Join(err, v.Close())
		}
		return err
	}
	id, err := c.s.snapshots.add(v)
	if err != nil {
		return err
	}
	c.w.Array(2)
	c.w.Int(id)
	c.w.BulkString(at.String())
	return nil
}

// openAt takes the view when the shard is at the position that the command names.
func (c *call) openAt(on *shard.Shard, take func(shard.StateMachine) error) (wire.Position, error) {
	at, err := parsePosition(c.arg(4))
	if err != nil {
		return at, err
	}
	limit, text := c.timeout(5)
	if text != "" {
		return at, errors.New(strings.TrimPrefix(text, "ERR "))
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(limit, maxHold))
	defer cancel()
	err = on.At(ctx, at.Offset, func(p wire.Position, m shard.StateMachine) error {
		if p != at {
			return fmt.Errorf("the shard is at %s, which is another history", p)
		}
		return take(m)
	})
	switch {
	case errors.Is(err, shard.ErrPassed):
		err = fmt.Errorf("the shard is at %s already, past %s: HOLD it before the other node's OPEN", on.Position(), at)
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("the shard is at %s and did not reach %s within %s", on.Position(), at, limit)
	}
	return at, err
}

// parsePosition reads what wire.Position.String writes.
func parsePosition(s string) (wire.Position, error) {
	if s == (wire.Position{}).String() {
		return wire.Position{}, nil
	}
	generation, offset, _ := strings.Cut(s, ":")
	g, err := wire.ParseGeneration(generation)
	if err != nil {
		return wire.Position{}, fmt.Errorf("%q is not a position, generation:offset", s)
	}
	n, err := strconv.ParseUint(offset, 10, 64)
	if err != nil {
		return wire.Position{}, fmt.Errorf("%q is not a position, generation:offset", s)
	}
	return wire.Position{Generation: g, Offset: n}, nil
}

// snapshotReader reads a range of a view.
type snapshotReader struct {
	view     *engine.View
	w        *resp.Writer
	from, to []byte
	limit    int
}

func snapshotRange(c *call, read func(*snapshotReader) error) error {
	id, err := c.number(2)
	if err != nil {
		return err
	}
	limit, err := c.number(5)
	if err != nil {
		return err
	}
	s := c.s.snapshots.get(id)
	if s == nil {
		return noSnapshot(id)
	}
	s.busy.Lock()
	defer s.busy.Unlock()
	if s.closed {
		return noSnapshot(id)
	}
	r := snapshotReader{view: s.view, w: c.w, from: c.args[3], to: c.args[4], limit: int(min(limit, 1<<31-1))}
	from, to := engine.KeyspaceBounds()
	if len(r.from) == 0 {
		r.from = from
	}
	if len(r.to) == 0 {
		r.to = to
	}
	return read(&r)
}

func (r *snapshotReader) digest() error {
	d, next, err := r.view.Digest(r.from, r.to, r.limit)
	if err != nil {
		return err
	}
	r.w.Array(3)
	r.w.Bulk(next)
	r.w.Int(int64(d.Count))
	r.w.BulkString(fmt.Sprintf("%016x%016x", d.Hi, d.Lo))
	return nil
}

func (r *snapshotReader) keys() error {
	limit := r.limit
	if limit == 0 || limit > maxSnapshotIn {
		limit = maxSnapshotIn
	}
	n := 0
	var next []byte
	var bad error
	var entries resp.Writer
	err := r.view.Hashes(r.from, r.to, func(key []byte, sum [16]byte) bool {
		if n == limit {
			next = append([]byte(nil), key...)
			return false
		}
		k, err := engine.DecodeKey(key)
		if err != nil {
			bad = err
			return false
		}
		kind := "record"
		if k.Kind == engine.KeyIndex {
			kind = "expiry"
		}
		n++
		entries.Array(4)
		entries.Bulk(key)
		entries.BulkString(kind)
		entries.Bulk(k.User)
		entries.BulkString(hex.EncodeToString(sum[:]))
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return err
	}
	r.w.Array(2)
	r.w.Bulk(next)
	r.w.Array(n)
	r.w.Buf = append(r.w.Buf, entries.Buf...)
	return nil
}

func snapshotClose(c *call) error {
	id, err := c.number(2)
	if err != nil {
		return err
	}
	s := c.s.snapshots.take(id)
	if s == nil {
		return noSnapshot(id)
	}
	s.busy.Lock()
	defer s.busy.Unlock()
	s.closed = true
	if err := s.view.Close(); err != nil {
		return err
	}
	c.w.OK()
	return nil
}

func noSnapshot(id int64) error {
	return fmt.Errorf("there is no snapshot %d: it was closed, or not used for %s", id, snapshotIdle)
}

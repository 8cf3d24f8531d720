package replctl

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/wire"
)

// remote is a snapshot that a node holds for its client, REPL.SNAPSHOT.
type remote struct {
	conn     *client.Conn
	id       string
	position string
	entries  uint64 // digested so far with a bound, which is the walk over all of them
}

func millis64(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// hold keeps a replica's shard from applying more, for at most the time given or until a snapshot is opened.
func hold(c *client.Conn, shard int, limit time.Duration) error {
	_, err := c.Do("REPL.SNAPSHOT", "HOLD", strconv.Itoa(shard), millis64(limit))
	return err
}

// release ends a hold.
func release(c *client.Conn, shard int) error { return hold(c, shard, 0) }

func openSnapshot(c *client.Conn, shard int) (*remote, error) {
	return opened(c, "REPL.SNAPSHOT", "OPEN", strconv.Itoa(shard))
}

func openSnapshotAt(c *client.Conn, shard int, position string, limit time.Duration) (*remote, error) {
	c.SetTimeout(limit + askTimeout)
	defer c.SetTimeout(askTimeout)
	return opened(c, "REPL.SNAPSHOT", "OPEN", strconv.Itoa(shard), "AT", position, millis64(limit))
}

func opened(c *client.Conn, args ...string) (*remote, error) {
	v, err := c.Do(args...)
	if err != nil {
		return nil, err
	}
	if len(v.Elems) != 2 {
		return nil, fmt.Errorf("%s: REPL.SNAPSHOT OPEN answered %d elements, want 2", c.Addr(), len(v.Elems))
	}
	return &remote{conn: c, id: strconv.FormatInt(v.Elems[0].Int, 10), position: v.Elems[1].Str}, nil
}

// pairAttempts is how often two replicas are brought to one position. A frame that is being applied when a replica is
// held may take it past the other's position.
const pairAttempts = 5

// openPair opens a snapshot of each node, both at one position.
func openPair(primary, replica *verifiedNode, shard int, limit time.Duration) (p, r *remote, err error) {
	for range pairAttempts {
		if primary.follows() {
			p, r, err = openReplicas(primary.conn, replica.conn, shard, limit)
		} else {
			p, r, err = openFollower(primary.conn, replica.conn, shard, limit)
		}
		if err == nil || !strings.Contains(err.Error(), "already, past") {
			break
		}
	}
	return p, r, err
}

// openFollower holds the replica's ingest first, so that it cannot pass the position at which the primary's snapshot is
// then taken; the replica goes on to that position, and no further until its own is taken.
func openFollower(primary, replica *client.Conn, shard int, limit time.Duration) (p, r *remote, err error) {
	if err := hold(replica, shard, limit); err != nil {
		return nil, nil, err
	}
	if p, err = openSnapshot(primary, shard); err != nil {
		return nil, nil, errors.Join(err, release(replica, shard))
	}
	if r, err = openSnapshotAt(replica, shard, p.position, limit); err != nil {
		return nil, nil, errors.Join(err, p.close())
	}
	return p, r, nil
}

// openReplicas holds both, takes a snapshot of each, and where these are not at one position, lets the one that is behind
// go on to the other's.
func openReplicas(a, b *client.Conn, shard int, limit time.Duration) (first, second *remote, err error) {
	defer func() { err = errors.Join(err, release(a, shard), release(b, shard)) }()
	conns, open := []*client.Conn{a, b}, make([]*remote, 2)
	var at [2]wire.Position
	undo := func(err error) (*remote, *remote, error) {
		for _, r := range open {
			if r != nil {
				err = errors.Join(err, r.close())
			}
		}
		return nil, nil, err
	}
	for _, c := range conns {
		if err := hold(c, shard, limit); err != nil {
			return undo(err)
		}
	}
	for i, c := range conns {
		r, err := openSnapshot(c, shard)
		if err != nil {
			return undo(err)
		}
		open[i] = r
		if at[i], err = parsePosition(r.position); err != nil {
			return undo(fmt.Errorf("%s: %w", c.Addr(), err))
		}
	}
	if at[0] == at[1] {
		return open[0], open[1], nil
	}
	ahead, behind := 0, 1
	if at[1].Offset > at[0].Offset {
		ahead, behind = 1, 0
	}
	late := open[behind]
	open[behind] = nil
	// The one that is ahead may be what the other follows.
	if err := errors.Join(late.close(), release(conns[ahead], shard)); err != nil {
		return undo(err)
	}
	if open[behind], err = openSnapshotAt(conns[behind], shard, open[ahead].position, limit); err != nil {
		return undo(err)
	}
	return open[0], open[1], nil
}

func (r *remote) close() error {
	_, err := r.conn.Do("REPL.SNAPSHOT", "CLOSE", r.id)
	return err
}

// ask asks for something about a range, which is answered with want elements. The first of them is where to go on.
func (r *remote) ask(verb string, from, to []byte, n, want int) (elems []resp.Value, next []byte, err error) {
	v, err := r.conn.Do("REPL.SNAPSHOT", verb, r.id, string(from), string(to), strconv.Itoa(n))
	if err != nil {
		return nil, nil, err
	}
	if len(v.Elems) != want {
		return nil, nil, fmt.Errorf("%s: REPL.SNAPSHOT %s answered %d elements, want %d", r.conn.Addr(), verb, len(v.Elems), want)
	}
	if first := v.Elems[0].Str; first != "" {
		next = []byte(first)
	}
	return v.Elems[1:], next, nil
}

func (r *remote) digest(from, to []byte, n int) (string, []byte, error) {
	elems, next, err := r.ask("DIGEST", from, to, n, 3)
	if err != nil {
		return "", nil, err
	}
	if n > 0 {
		r.entries += uint64(elems[0].Int)
	}
	return elems[1].Str, next, nil
}

func (r *remote) hashes(from, to []byte, n int) ([]entry, []byte, error) {
	elems, next, err := r.ask("KEYS", from, to, n, 2)
	if err != nil {
		return nil, nil, err
	}
	var entries []entry
	for _, e := range elems[0].Elems { // entry, kind, key, hash
		if len(e.Elems) != 4 {
			return nil, nil, fmt.Errorf("%s: REPL.SNAPSHOT KEYS answered an entry of %d elements, want 4", r.conn.Addr(), len(e.Elems))
		}
		entries = append(entries, entry{key: []byte(e.Elems[0].Str), sum: e.Elems[3].Str})
	}
	return entries, next, nil
}

package replctl

import (
	"fmt"
	"strconv"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/resp"
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

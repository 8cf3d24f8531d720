package replctl

import (
	"bytes"
	"context"

	"github.com/understudy-kv/understudy/internal/engine"
)

// rangeEntries is how many entries are digested at once: few enough that listing a range that differs is cheap, enough
// that a million keys need some hundred round trips.
const rangeEntries = 8192

// snapshot is one shard of one node, held at one position. Ranges are of engine keys, [from, to).
type snapshot interface {
	// digest digests the first n entries of the range, all if n is 0, and returns where to go on, nil at the end.
	digest(from, to []byte, n int) (digest string, next []byte, err error)
	// hashes lists the first n entries of the range, and returns where to go on, nil at the end.
	hashes(from, to []byte, n int) (entries []entry, next []byte, err error)
}

// entry is an engine key and the hash of it and its value.
type entry struct {
	key []byte
	sum string
}

// sides says on which of the two nodes something is.
type sides string

const (
	onlyPrimary sides = "only at the primary"
	onlyReplica sides = "only at the replica"
	bothDiffer  sides = "different"
)

// compareRanges walks the keyspace of both snapshots in the same steps and calls differs for each engine key that they do
// not have alike, in order. at is told how far it has come.
func compareRanges(ctx context.Context, primary, replica snapshot, at func(from []byte), differs func(key []byte, s sides)) error {
	from, to := engine.KeyspaceBounds()
	for from != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		at(from)
		want, next, err := primary.digest(from, to, rangeEntries)
		if err != nil {
			return err
		}
		end := next
		if end == nil {
			end = to
		}
		got, _, err := replica.digest(from, end, 0)
		if err != nil {
			return err
		}
		if got != want {
			if err := compareKeys(ctx, primary, replica, from, end, differs); err != nil {
				return err
			}
		}
		from = next
	}
	return nil
}

// compareKeys merges the two lists of one range. Either may be longer than rangeEntries by any amount.
func compareKeys(ctx context.Context, primary, replica snapshot, from, to []byte, differs func(key []byte, s sides)) error {
	p, r := &list{of: primary, next: from, to: to}, &list{of: replica, next: from, to: to}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		a, err := p.head()
		if err != nil {
			return err
		}
		b, err := r.head()
		if err != nil {
			return err
		}
		switch {
		case a == nil && b == nil:
			return nil
		case b == nil || a != nil && bytes.Compare(a.key, b.key) < 0:
			differs(a.key, onlyPrimary)
			p.pop()
		case a == nil || bytes.Compare(a.key, b.key) > 0:
			differs(b.key, onlyReplica)
			r.pop()
		default:
			if a.sum != b.sum {
				differs(a.key, bothDiffer)
			}
			p.pop()
			r.pop()
		}
	}
}

// list reads a range of a snapshot piece by piece.
type list struct {
	of       snapshot
	next, to []byte // next is nil when nothing is left to read
	entries  []entry
}

func (l *list) head() (*entry, error) {
	for len(l.entries) == 0 && l.next != nil {
		var err error
		if l.entries, l.next, err = l.of.hashes(l.next, l.to, rangeEntries); err != nil {
			return nil, err
		}
	}
	if len(l.entries) == 0 {
		return nil, nil
	}
	return &l.entries[0], nil
}

func (l *list) pop() { l.entries = l.entries[1:] }

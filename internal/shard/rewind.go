package shard

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

// A rejoin by difference replaces a shard's data by
//
//	what it has now, but for the keys that its surplus touched; those have what a primary has under them, at one position
//
// which is no state of any position, and takes the shard back to the fork. The mutations from the fork up to that position,
// absolute as they are, make it the primary's state there: everything that they do not touch is as it was at the fork, at
// both ends. Until the shard has applied them it is unsettled: nothing of it is read, copied, promoted or rewound, its
// manifest says so, and it takes frames of that one history only.
//
// It is made like a snapshot that is installed: a checkpoint of the shard's own beside its data, with the values put over
// it, and a fork of its log. The manifest's replacement is the switch, so a crash leaves the one or the other.

// ErrCannotRewind is returned where only a full sync helps: the state machine is no [Rewinder], or the surplus is not one
// that can be undone key by key.
var ErrCannotRewind = errors.New("a rejoin by difference is not possible")

var errNoRewinder = fmt.Errorf("%w: the state machine does not have it", ErrCannotRewind)

// Settled reports whether the shard's data is the state of one position. That it has become so is durable.
func (s *Shard) Settled() bool { return s.settles.Load() == nil }

// Settles is the position from which on the shard's data is whole; zero if it is.
func (s *Shard) Settles() wire.Position {
	if at := s.settles.Load(); at != nil {
		return *at
	}
	return wire.Position{}
}

// CanRewind reports whether Rewind could work now.
func (s *Shard) CanRewind() bool {
	can := false
	err := s.Use(func(m StateMachine) error {
		_, can = m.(Rewinder)
		return nil
	})
	return can && err == nil && !s.Writable()
}

// Values calls f for each key, in the order given, with what the shard has under it, and returns the position of that,
// which is one for all keys and does not lie before the shard's at the call. It stops at f's first error and returns it.
func (s *Shard) Values(keys [][]byte, f func(key, value []byte, found bool) error) (at wire.Position, err error) {
	err = s.Use(func(m StateMachine) error {
		r, ok := m.(Rewinder)
		if !ok {
			return fmt.Errorf("shard %d: %w", s.opts.Shard, errNoRewinder)
		}
		if at, err = r.Values(keys, f); err == nil {
			at = s.Lineage().Reached(at.Offset)
		}
		return err
	})
	return at, err
}

// maxTouched is how many bytes the keys may have that a primary is asked for, with room for what lists them.
const maxTouched = wire.MaxWantBytes - 64<<10

// Touched lists the keys of all mutations from the boundary offset from on, ascending, each once: what they have to be given
// back for a Rewind to it. The error is ErrCannotRewind, with the reason, where the mutations have more than limit bytes,
// or touch more than a primary can be asked for.
func (s *Shard) Touched(from uint64, limit int64) ([][]byte, error) {
	log := s.Log()
	cannot := func(format string, args ...any) error {
		return fmt.Errorf("shard %d: %w: "+format, append([]any{s.opts.Shard, ErrCannotRewind}, args...)...)
	}
	if n := log.BytesFrom(from); n > limit {
		return nil, cannot("the mutations from %d on have %d bytes, more than %d", from, n, limit)
	}
	touched, size := map[string]struct{}{}, 0
	err := log.Replay(from, func(f wire.Frame) error {
		ops := f.Ops()
		for ops.Next() {
			op := ops.Op()
			switch op.Kind {
			case wire.OpPut, wire.OpDelete:
				if _, twice := touched[string(op.Key)]; twice {
					continue
				}
				touched[string(op.Key)] = struct{}{}
				if size += len(op.Key) + 4; size > maxTouched || len(touched) > wire.MaxWantKeys {
					return cannot("the mutations from %d on touch more than %d keys, or %d bytes of keys", from, wire.MaxWantKeys, maxTouched)
				}
			case wire.OpDeleteRange:
				return cannot("a range of keys was deleted at %d", f.First)
			}
		}
		return ops.Err()
	})
	if errors.Is(err, backlog.ErrEvicted) || errors.Is(err, backlog.ErrMisaligned) {
		err = cannot("%w", err)
	}
	if err != nil {
		return nil, err
	}
	keys := make([][]byte, 0, len(touched))
	for k := range touched {
		keys = append(keys, []byte(k))
	}
	slices.SortFunc(keys, bytes.Compare)
	return keys, nil
}

// Rewind goes back to fork, a position of the shard's own history and of lineage l, which the shard takes over. values are
// checked values frames: what the primary of that lineage had at the position settles under every key that the mutations
// behind the fork touched. A crash at any instant leaves the old data or the new; an error leaves the old, or fences the
// shard. The shard's replicas, and readers of the log, have to come again.
func (s *Shard) Rewind(fork, settles wire.Position, l wire.Lineage, values func(func(wire.Frame) error) error) error {
	if err := l.Validate(); err != nil {
		return err
	}
	if !l.Contains(fork, fork.Offset) || settles.Offset < fork.Offset || !l.Contains(settles, math.MaxUint64) {
		return fmt.Errorf("shard %d: a rewind to %s, settled at %s, does not lie on the lineage %s", s.opts.Shard, fork, settles, l)
	}
	return s.do(func() error { return s.rewind(fork, settles, l, values) })
}

func (s *Shard) rewind(fork, settles wire.Position, l wire.Lineage, values func(func(wire.Frame) error) error) (err error) {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("shard %d: rewinding to %s: "+format, append([]any{s.opts.Shard, fork}, args...)...)
	}
	own := s.Position()
	switch {
	case s.Writable():
		return fail("%w", ErrWritable)
	case !s.Settled():
		return fail("%w", ErrUnsettled) // nothing tells what the values that it holds would have to be replaced by
	case s.Err() != nil:
		return fail("%w", s.Err())
	case fork.Offset >= own.Offset || !s.Lineage().Contains(fork, own.Offset):
		return fail("it is no position behind which the shard, at %s on %s, has anything", own, s.Lineage())
	}
	if _, ok := s.machine.(Rewinder); !ok {
		return fail("%w", errNoRewinder)
	}
	// What the fork of the log shares with it must be durable.
	if err := s.Log().Sync(); err != nil {
		err = fail("syncing the log: %w", err)
		s.fence(err, false)
		return err
	}
	n, err := s.successor(l.Reached(fork.Offset), l)
	if err != nil {
		return err
	}
	defer n.giveUp(&err)
	if settles.Offset > fork.Offset {
		n.settles = &settles
	}
	at, err := s.machine.Checkpoint(s.path(n.engine))
	if err == nil && at.Offset != own.Offset {
		err = fmt.Errorf("a checkpoint of %s is at %s", own, at)
	}
	if err == nil {
		err = s.undo(n, values)
	}
	if err == nil {
		err = n.open()
	}
	if err == nil {
		n.log, err = s.Log().Fork(n.logOptions(), fork.Offset)
	}
	if err != nil {
		return fail("%w", err)
	}
	old, err := n.take()
	if err != nil {
		return fail("%w", err)
	}
	if err := s.opts.FS.RemoveAll(s.path(old.Engine)); err != nil {
		s.opts.Logger.Error("the data before the rewind could not be removed", "shard", s.opts.Shard, "error", err)
	}
	s.opts.Logger.Warn("went back to the fork", "shard", s.opts.Shard, "position", n.at, "from", own, "settles_at", settles)
	return nil
}

// undo puts the values over the checkpoint and takes it to the successor's position.
func (s *Shard) undo(n *successor, values func(func(wire.Frame) error) error) error {
	m, err := s.opts.Open(s.env(n.engine))
	if err != nil {
		return err
	}
	r, ok := m.(Rewinder)
	if !ok {
		return errors.Join(errNoRewinder, m.Close())
	}
	return errors.Join(r.Rewind(n.at, values), m.Close())
}

// settle ends a rejoin once what the values are of is applied. From here on the data is a state like any other, so what
// brought it there must not be lost behind its back: the log is synced, then the manifest forgets. It runs on the loop, when
// the state machine has everything before next.
func (s *Shard) settle(next uint64) {
	at := s.settles.Load()
	if at == nil || next < at.Offset || s.Err() != nil {
		return
	}
	if err := s.Log().Sync(); err != nil {
		s.fence(fmt.Errorf("shard %d: syncing the log: %w", s.opts.Shard, err), false)
		return
	}
	if err := s.updateManifest(func(m *manifest) { m.setSettles(nil) }); err != nil {
		if !s.unsettling {
			s.opts.Logger.Error("the end of a rejoin cannot be recorded, will retry", "shard", s.opts.Shard, "error", err)
		}
		s.unsettling = true
		return
	}
	s.unsettling = false
	s.settles.Store(nil)
	s.opts.Logger.Info("rejoined by difference", "shard", s.opts.Shard, "position", s.Lineage().At(next))
}

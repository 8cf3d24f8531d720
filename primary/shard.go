package primary

import (
	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

// valuer is a [Shard] that can tell what it has under some keys; replicas of others cannot rejoin by difference.
type valuer interface {
	// Values calls f for every key, in the order given, with what the state has under it, and returns the position of that
	// state, which is one for all keys and does not lie before that at the call. It stops at f's first error and
	// returns it. Without keys it only tells, by an error, whether it could.
	Values(keys [][]byte, f func(key, value []byte, found bool) error) (wire.Position, error)
}

// tellsValues reports whether the shard is a valuer, and its state machine lets it.
func (p *port) tellsValues() bool {
	v, ok := p.Shard.(valuer)
	if !ok {
		return false
	}
	_, err := v.Values(nil, func([]byte, []byte, bool) error { return nil })
	return err == nil
}

// summer is a [Shard] that knows the sums of files of its checkpoints.
type summer interface {
	// CheckpointSummed is [Shard.Checkpoint]. It returns size and XXH3-128 sum of those files that it knows them of, by their
	// names in dir.
	CheckpointSummed(dir string) (at wire.Position, known []wire.File, err error)
}

// quiet asks a shard that can to put off work of its own until release is called, so that a full sync is over sooner.
func quiet(s Shard) (release func()) {
	if s, ok := s.(interface{ Quiet() (release func()) }); ok {
		return s.Quiet()
	}
	return func() {}
}

// checkpoint takes a checkpoint, and tells what is known of its files.
func checkpoint(s Shard, dir string) (at wire.Position, known []wire.File, err error) {
	if s, ok := s.(summer); ok {
		return s.CheckpointSummed(dir)
	}
	at, err = s.Checkpoint(dir)
	return at, nil, err
}

// Shard is what a [Server] needs of a shard. Its methods are called from many goroutines.
type Shard interface {
	// ID is the shard's index, from 0.
	ID() int
	// Lineage is the history of the shard's data, its present generation last. The result is not changed afterwards.
	Lineage() wire.Lineage
	// Position is what readers see. It never goes back within a generation.
	Position() wire.Position
	// Log is the shard's log. It may be replaced by another one, which closes the first.
	Log() *backlog.Log
	// Checkpoint writes the shard's present state into dir, which does not exist yet, as files that will never change,
	// and returns the state's position, which must not lie before that at the call. The files must be durable and must
	// not depend on anything outside dir.
	Checkpoint(dir string) (wire.Position, error)
	// Settled reports whether the shard's data is the state of one position; in the middle of a rewind it is not.
	Settled() bool
	// SetRetention gives the shard a function that tells the lowest offset a replica needs, if any does. The shard calls
	// it before it deletes log; it never blocks.
	SetRetention(func() (uint64, bool))
	// Err is why the shard refuses writes, or nil.
	Err() error
	// Dir is the shard's directory. The server keeps its snapshots in Dir/snapshots.
	Dir() string
}

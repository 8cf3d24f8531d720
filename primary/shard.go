package primary

import (
	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

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
	// SetRetention gives the shard a function that tells the lowest offset a replica needs, if any does. The shard calls
	// it before it deletes log; it never blocks.
	SetRetention(func() (uint64, bool))
	// Err is why the shard refuses writes, or nil.
	Err() error
	// Dir is the shard's directory. The server keeps its snapshots in Dir/snapshots.
	Dir() string
}

package replica

import "github.com/understudy-kv/understudy/wire"

// Shard is what a link feeds. *shard.Shard of the programs is one. Ingest, AdoptLineage and Install are called one at a
// time; the other methods may be called beside them, from any goroutine.
type Shard interface {
	// ID is the shard's id; Dir its directory, in which the link keeps the directory "staging".
	ID() int
	Dir() string
	// Position is what readers see, zero for a shard that never had a history. Lineage is that history.
	Position() wire.Position
	Lineage() wire.Lineage
	// Durable is the offset up to which the shard survives power loss.
	Durable() uint64
	// AdoptLineage takes over the primary's lineage, on which the shard's position lies. It is durable on return.
	AdoptLineage(wire.Lineage) error
	// Ingest appends whole, checked frames with the mutations [first, next) to the log and applies them. It returns
	// once readers see them, keeps nothing of the slice, and on error has applied nothing that Position does not tell.
	Ingest(frames []byte, first, next uint64) error
	// Install replaces the shard's state by the files in dir, which are complete, checked and durable, and moves dir
	// away. Readers see the old state until they see the new one. On error the old state, position and lineage stay.
	Install(dir string, at wire.Position, l wire.Lineage) error
	// CommitMicros is when the primary committed the last applied frame, in microseconds since 1970; 0 if unknown.
	CommitMicros() int64
	// Err is why the shard takes no frames, or nil.
	Err() error
}

// Store is the data directory as the follower uses it. Calls are not concurrent.
type Store interface {
	// Shards are those of the data set that readers see; none before the first one was made.
	Shards() []Shard
	// NewDataset makes a data set of n empty shards beside the present one, which readers go on to see. One that was
	// begun with the same n and never switched to is opened as it is; one with another n is removed.
	NewDataset(n int) ([]Shard, error)
	// Switch makes the data set of the last NewDataset the one that readers see.
	Switch() error
	// SetMixed records that the shards that readers see may hold states of two histories, or that they do not any more. It
	// is durable on return. Switch takes it back.
	SetMixed(bool) error
	// Mixed is what was recorded last.
	Mixed() bool
}

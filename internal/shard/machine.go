package shard

import (
	"io"

	"github.com/understudy-kv/understudy/wire"
)

// StateMachine is what a shard's mutations are applied to. Pebble is the one that the programs use; an embedding program
// may bring its own. Only the shard's goroutine calls Apply; the other methods may be called beside it. A machine that has a
// method Started() is told, up to a second after the shard was opened and from then on now and again, that it is used: until
// then it may put off what can wait, since a start should be short.
type StateMachine interface {
	// Position is where the state visible to readers is. The zero position means that nothing was ever applied.
	Position() (wire.Position, error)
	// Durable is the offset up to which the state survives a power loss. The log is replayed from there at the next
	// start, and frames before it may be deleted. 0 when nothing is durable.
	Durable() (uint64, error)
	// Apply makes the batch's operations and its position visible, together. It need not be durable on return. It must
	// not keep the batch's slices. An error stops the shard, except one that is syscall.ENOSPC: that one says that nothing
	// of the batch happened for want of room, and the shard applies the same batch again once there is some. A machine
	// that also has a method Err() error is asked before each append, and nothing is logged while it returns one.
	Apply(wire.Batch) error
	// Flush returns once everything applied before the call is durable.
	Flush() error
	// Checkpoint writes the state at one position into dir, which does not exist yet, as files that will not change, and
	// returns that position. Writes go on meanwhile. A Factory given a directory with these files opens that state.
	Checkpoint(dir string) (wire.Position, error)
	// Close ends all use. It need not flush.
	Close() error
}

// Summer is a StateMachine that knows the sums of files that it wrote, so that a snapshot of them need not be read to be
// described.
type Summer interface {
	StateMachine
	// CheckpointSummed is Checkpoint. It returns the size and the XXH3-128 sum of those files that it knows them of, by
	// their names in dir: of all their bytes, as they were meant to be written.
	CheckpointSummed(dir string) (at wire.Position, known []wire.File, err error)
}

// Quieter is a StateMachine that can put off work of its own.
type Quieter interface {
	StateMachine
	// Quiet asks for that until release is called, while something that has an end needs the machine's disk and processors,
	// and returns at once. The state machine need not heed it, and must not for ever: release may never be called.
	Quiet() (release func())
}

// Rewinder is a StateMachine that can rejoin by difference, at either end. One that is none is synced in full instead.
type Rewinder interface {
	StateMachine
	// Values calls f for each key, in the order given, with what is visible under it, and returns the position of that
	// state, which is one for all keys. It stops at f's first error and returns it. f may take long: writes go on meanwhile.
	// Keys are those of operations, f's arguments are valid during the call. It may be called beside Apply.
	Values(keys [][]byte, f func(key, value []byte, found bool) error) (wire.Position, error)
	// Rewind puts the operations, puts and deletes, of checked values frames over the state, and takes its position to at,
	// which lies before the present one. It must return only when both are durable. The shard calls it once, on a machine
	// that it has opened just now on the files of a Checkpoint, and closes that one afterwards, whatever the result: after
	// an error or a crash, nobody looks at the files again. values calls its argument with each frame in turn and returns
	// the first error, its own or the argument's; a frame is valid during the call.
	Rewind(at wire.Position, values func(func(wire.Frame) error) error) error
}

// Leaver is a StateMachine that need not copy all that it is given: it leaves large values in the log, and reads them there
// until it has them on disk. So they are written once more less, and take no memory.
type Leaver interface {
	StateMachine
	// ApplyLogged is Apply. The batch's frames lie in log, one behind the other, from the address addr on, and can be read there
	// until NeedsLog says otherwise. log is one and the same for all calls. It is a [backlog.Log], whose Browse is for who reads much of it.
	ApplyLogged(b wire.Batch, log io.ReaderAt, addr int64) error
	// NeedsLog is the offset from which on the machine may still read the log, or Position's if it needs nothing of what was
	// applied. What lies before it may be deleted. It never goes back.
	NeedsLog() (uint64, error)
	// LeftInLog is how many bytes of values a flush would write that lie in the log and nowhere else, and how many more there were
	// since the last flush and have been overwritten.
	LeftInLog() (live, overwritten int64)
}

// Hurrier is a StateMachine whose background work, such as what Flush waits for, leaves processors to others.
type Hurrier interface {
	StateMachine
	// Hurry has it take what it wants of them until release is called, which may be done twice, and behind Close.
	Hurry() (release func())
}

// Progresser is a StateMachine that tells how far a flush is.
type Progresser interface {
	StateMachine
	// Progress is which part of the present flush is done, from 0 to 1. Any goroutine may call it.
	Progress() float64
}

// Env is what a state machine is given when it is opened.
type Env struct {
	Shard int
	Dir   string // its own directory: empty, or what a state machine or a Checkpoint left there
	// BeforeFlush must be called, and must have returned nil, before anything that was applied becomes durable. It may be
	// called from any goroutine.
	BeforeFlush func() error
	// OnError reports an error that happened in the background and that makes the state unusable. The shard then refuses
	// writes. It may be called from any goroutine, more than once.
	OnError func(error)
}

// Factory opens a state machine.
type Factory func(Env) (StateMachine, error)

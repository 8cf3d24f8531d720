package backlog

import (
	"errors"
	"fmt"
)

// The errors of this package. They are wrapped with the value at fault, so test with errors.Is.
var (
	// ErrEvicted means that the offset is older than the oldest frame held: only a full sync helps. An empty log answers
	// it too, never "no frames".
	ErrEvicted = errors.New("backlog: offset is no longer held")
	// ErrFuture means that the offset lies past what was published.
	ErrFuture = errors.New("backlog: offset is past the end of the log")
	// ErrMisaligned means that the offset lies inside a frame, so nobody can have stopped there.
	ErrMisaligned = errors.New("backlog: offset is not a frame boundary")
	// ErrClosed means that the log or the reader was closed.
	ErrClosed = errors.New("backlog: closed")
	// ErrBroken means that a sync failed, or that a failed append could not be undone: what the file holds is not known
	// any more. It lasts until the log is opened again.
	ErrBroken = errors.New("backlog: log is broken until it is opened again")
	// ErrAppend means that the bytes given to Append are not the frames that come next: a defect of the caller.
	ErrAppend = errors.New("backlog: not the next frames")
	// ErrNoLog means that a directory holds no segment. Create one.
	ErrNoLog = errors.New("backlog: no log in this directory")
)

// CorruptError says that bytes which must be good are not: [Open] refuses to start with it, and [Reader.Next] and
// [Log.Replay] end with it. Nothing at or behind Offset was handed out as good.
type CorruptError struct {
	File   string // the segment
	Byte   int64  // where in it the damaged part begins
	Offset uint64 // of the first mutation that cannot be read
	Reason string
}

// Error names the file, the byte, the offset and the ways out.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("backlog: %s is damaged at byte %d (offset %d): %s; nothing was changed: put back an undamaged copy of the file, "+
		"or, on a replica, move this shard's data away so that it is fetched again; a primary can go on with the data directory of a replica", e.File, e.Byte, e.Offset, e.Reason)
}

// failure is why the log accepts nothing any more. It is kept behind an atomic pointer, so that asking costs nothing.
type failure struct{ err error }

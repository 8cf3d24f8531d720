// Package shard runs one shard: a log, a state machine and the lineage that says which history they hold, in the hands of
// one goroutine at a time (turn.go). The primary's commands and the replica's frames take the same way through it:
//
//	execute (primary) or receive (replica) -> append to the log (+ fsync by policy) -> apply with the position -> publish
//
// # Invariants
//
//  1. A frame is appended before it is applied and before anyone hears of it; under [FsyncAlways] it is also synced before.
//  2. A batch's data and the position that it brings the shard to are one write of the state machine.
//  3. The state machine never holds a mutation that the log may still lose, but for the machine's own power loss: the log
//     is synced before the state machine makes anything durable (the beforeFlush of [Factory]).
//  4. What recovery needs is never trimmed from the log.
//  5. After a failed append nothing of the group happened. After a failed fsync or apply the shard takes no more writes
//     until it is opened again, since what the disk holds is not known; it never acknowledges, and never ends the process.
//  6. The manifest names the state machine's directory, the log's directory and the lineage that belong together; it is
//     replaced atomically, so a switch to a snapshot happens wholly or not at all.
//
// # Which history goes on
//
// A killed process loses nothing that write(2) took. Only the machine's death can. So when a shard is opened whose last
// run did not stop cleanly, did not sync every group, and ran under another boot of the kernel, frames that replicas have
// may be missing here: a writable shard then begins a new generation at its recovered offset (design of PostgreSQL's
// timelines and Redis's replication ids, decided by the boot id instead of by an operator).
//
// The same holds for a shard whose last run followed a primary: that primary, or another of its replicas, may go on in the
// old generation past the offset that is held here. Opened as writable, the shard begins a generation of its own; the
// decision is the shard's, in its manifest, so that a crash between two shards' openings cannot forget it.
package shard

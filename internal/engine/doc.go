// Package engine keeps one shard's data in Pebble, together with the position that the data belongs to.
//
// The log is the write-ahead log: Pebble runs without one, and without its own memtable. What is applied goes into a
// memtable of ours (memtable.go): a copy and one place in a hash index; what it overwrites makes room for what comes
// next (reuse.go). When it is large enough, or enough log waits for it, it is frozen, and the flusher hands it to Pebble (flush.go): sorted, without what was overwritten, as tables that Pebble takes over in one
// version edit with the position behind the last mutation in them. So whatever part of a shard's history survives a crash
// here, it is a prefix of it and says where it ends. Recovery opens the engine, reads that position, and replays the log
// from there. Reads ask the active memtable, the frozen ones, then Pebble (layers.go, iter.go).
//
// # Keys
//
//	0x00 name                                                    system: "position" -> generation:16 offset:8
//	0x01 slot:2 hash:4 keylen:uvarint key sub:1 [part]           data: sub 0x00 is the key's record
//	0x02 deadline:8 slot:2 hash:4 keylen:uvarint key             expiry index, value empty
//
// Integers in keys are big-endian, so bytes order as numbers do; slot is Redis's hash slot and hash the CRC32C of the
// user key. A key is its own end (its length stands before it), so everything of one user key is contiguous: the
// record first, then, for types that are kept in parts, sub 0x10 and up. One slot's keys are contiguous too. A SCAN
// cursor is slot<<32|hash, hence needs no state here and survives any change of the number of shards.
//
// A record is type:1 flags:1 [deadline:8] payload; flags bit 0 says that a deadline is there.
//
// # Invariants
//
//  1. Data and position become Pebble's in one version edit, and a batch is never divided between two of them. Apply
//     refuses frames that do not begin at the position it has, so nothing is applied twice and nothing is skipped.
//  2. Nothing becomes durable here before the log is: BeforeFlush returns without an error before the first table of a
//     flush is created. Otherwise a power cut could leave the engine ahead of its log.
//  3. Each live record that has a deadline has its entry in the expiry index. The reverse does not hold: an entry is a
//     hint that the reaper checks and drops when it is stale. So Set and Delete never read the old value.
//  4. Only system, data and index keys of the forms above are applied; a frame that names another key, or a range that
//     reaches outside data and index, is refused whole.
//  5. After an error that Pebble calls fatal, no byte of the engine's directory changes any more (gate.go): the disk
//     is what it would be had the process died there, and the process goes on.
//
// # Goroutines
//
// [Engine.Apply], [Engine.Close] and everything of [Tx] belong to the shard's owner goroutine. Everything else may be
// called from any goroutine, also while the engine closes; it then fails with [ErrClosed]. A [View] may be used by one
// goroutine at a time. The flusher and the granter (compactions.go) run from Open to Close; other goroutines are started only for the length of a
// Checkpoint and a Close. Pebble's end in Close, too, except behind the fence.
package engine

// Package wire is the format of Understudy's replication stream and of its log: the same bytes on the socket and on
// disk. It parses and builds; it never reads, writes, dials, sleeps or asks for the time, so every decision about
// bytes can be tested with bytes alone.
//
// # Words
//
// A mutation is the deterministic effect of a command on one shard: a set of puts and deletes. Its offset is its
// ordinal in the shard's history. Everywhere in this project an offset names the NEXT mutation and a range of
// offsets is half-open, [from, next). A frame carries zero or more mutations; control frames carry none and take no
// offset. A position is (generation, offset); a lineage is the list of generations a history went through.
//
// # The frame
//
//	magic:2 kind:1 flags:1 length:4 first:8 commit:8 count:4 headercrc:4 | payload:length | crc:4
//
// All integers are little-endian. headercrc is the CRC32C of the 28 bytes before it, so a length can be believed
// before the payload has arrived; crc is the CRC32C of everything before it.
//
// # Invariants
//
//  1. [ErrShort] is the only result that means "read on". Every other error ends the session or the recovery.
//  2. A parser never allocates from a length that the bytes it was given do not back.
//  3. Parsing what was built gives what was built; the golden vectors in testdata pin the bytes.
//  4. An unknown kind or field that is optional is skipped; an unknown required one is refused ([ErrUnknown]).
//
// docs/protocol.md is the normative description; its byte tables are generated from the golden vectors.
package wire

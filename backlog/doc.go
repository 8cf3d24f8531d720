// Package backlog is one shard's log: a mutation is written once, and the same bytes are the write-ahead log that
// recovery replays and the backlog that replicas are fed from.
//
//	l, err := backlog.Open(backlog.Options{FS: vfs.Default, Dir: dir})
//	err = l.Append(frames, first, next) // one write; a killed process loses nothing
//	err = l.Sync()                      // power loss loses nothing
//	l.Publish(next)                     // readers see it, and those that wait are told
//
//	r, err := l.NewReader(from)
//	for {
//		run, err := r.Next(ctx, 0) // whole frames, or pieces of one that is larger than a run
//		conn.Write(run.Bytes)
//	}
//
// Offsets name the next mutation and ranges are half-open, as everywhere (see package wire).
//
// # On disk
//
// A directory holds segments, named by their first offset in 20 digits, and the side file "synced". A segment is a
// header ([SegmentHeader]) and whole mutations frames as they were on the wire, contiguous within and between
// segments. Only the last segment, the active one, grows. An Append never straddles two segments; one that is larger
// than a segment gets one of its own. The side file holds the offset before which everything is known to be durable:
// it may lag behind the truth, and never leads it.
//
// # In memory
//
// The newest frames lie in slabs of at most 4 MiB, one copy for all readers. A reader pins the slab that its last Run
// points into; a slab that leaves the window while it is pinned is reused when the last pin is gone. Slabs are never
// made past Options.Memory. When every one is pinned by readers that do not move, or a frame is larger than a slab, new
// frames are not kept in memory, the window begins again behind them, and readers are served from the disk meanwhile.
// What memory has, the disk has too, so a reader can always fall back to the disk; it changes over between two frames
// only, and by offset, so there is no gap and no overlap.
//
// # Who waits for whom
//
// No IO is done under the lock that readers and Publish take. Append writes, then copies into a part of a slab that no
// reader looks at, and takes the lock to commit. A new segment waits for no sync of the old one: the old one stays open
// and dirty, and the next Sync covers it, before the new one and before the directory. Callers of Sync share one. The
// package starts no goroutine, but for those of Open that verify segments in parallel and end before it returns.
//
// # Crash safety
//
// What the process's death can do. Append is one write behind the committed bytes, so a killed process leaves, at
// worst, the beginning of that write: some whole frames that nobody was told of, and one that ends early. Recovery
// keeps the former and cuts the latter. A segment gets its name by a rename, after its header was written, so a killed
// process leaves no segment without a header.
//
// What a failing file system can do. An append that failed is cut off again, and the cut synced: otherwise a retry that
// is shorter than the failed write could be followed by whole, contiguous frames of it, of a history that never was. A
// file system without truncation gets zeros instead; no frame begins with zeros, so recovery takes them for the end. If
// the cut fails, or any sync fails, what the disk holds is unknown, and the log is broken (ErrBroken) until it is
// opened, that is, verified again: a second fsync after a failed one proves nothing. A roll that failed may have left a
// segment of that name, so the active segment never grows past it: the next Append must roll again, at the same offset.
//
// What power loss can do. Anything that was not synced may be missing, in any combination: blocks, lengths, directory
// entries. Sync returns, and the watermark moves, only after every dirty segment, oldest first, and then the directory
// were synced. So before the watermark nothing can be missing, and recovery calls a bad frame there corruption. At or
// past it, and only if the caller says that power was lost, recovery cuts at the first hole and drops what follows, and
// makes that durable before anything new is written, so that dropped frames cannot come back behind new ones. What is
// kept is a prefix of what was appended, and not shorter than what Sync returned for. If power was not lost, all that a
// kill can explain is a torn tail; a bad frame with a good header behind it, a hole between segments or a bad header
// is corruption. Corruption changes nothing on disk and is refused with the file, the byte and the ways out.
//
// Trim removes oldest segments first and syncs the directory after each, so no hole can appear, and leaves a segment
// alone until something in the one behind it was synced, so a log is never left without its beginning.
package backlog

// Package replica follows a primary: it keeps one link a shard, receives the shard's frames, and hands them to the
// shard in order, each exactly once, across any interruption of either side.
//
//	Follower ── runner (one a shard) ── Link      decides: Step(event) []action, no IO, no clock
//	                      └── session             obeys: one connection
//	                            reader ─► inbox (bounded in bytes) ─► applier ─► Shard.Ingest
//	                            writer ◄─ outbox (acks, coalesced)
//
// # Invariants
//
//  1. Nothing is acked as applied before the shard has applied it; nothing is acked during a full sync (pitfall 21).
//  2. A frame is applied only if all its bytes have passed their checks and it begins where the stream is. A frame that
//     was cut, damaged, repeated, or that leaves a gap ends the session, with a stated reason (pitfall 5).
//  3. HELLO tells a position that nothing moves: whatever an earlier session left in the inbox has been applied, or
//     dropped, before the next dial (pitfall 1).
//  4. A full sync touches nothing that readers see before the last byte of it is checked and durable. Whatever fails,
//     the old data and the old position stay (pitfalls 18, 19).
//  5. What is received and not applied is at most InboxBytes, or one single frame, plus one read buffer. A full inbox
//     stops the reader, and TCP stops the primary (pitfalls 29, 38). While it is full, silence proves nothing.
//  6. Every wait has a limit: 10 s for an answer, 9 s for silence and for a stuck write (pitfalls 31, 32). A link is redialled
//     for ever, with jittered backoff (pitfall 34); what each error leads to stands in one table, [rules].
//  7. One shard's trouble ends that shard's link only (pitfall 33).
//
// # Full sync
//
// Files are staged beside the live data, in <shard>/staging, with their manifest. What is there after a cut or a restart
// is hashed again and kept; a session asks only for what is missing. An empty FETCH, sent when the shard has loaded the
// snapshot, asks for the stream. A primary with another number of shards is staged into a data set of its own, which
// readers see once every shard of it is loaded.
//
// # Example
//
//	f, err := replica.NewFollower(replica.FollowerOptions{Primary: "10.0.0.1:16380", Store: store, ReplicaID: id})
//	...
//	err = f.WaitCaughtUp(ctx)
//	fmt.Println(f.Lag().Mutations)
//	err = f.Close()
package replica

// Package slottable is what a primary remembers of its replicas: one slot for each (replica id, shard). It decides who
// may hold a slot, which acks are believable, when a forgotten replica's slot is reaped, and from which offset on the
// log must be kept. It is a table and nothing else: no goroutine, lock, clock or file. Time is passed in, as the time
// since any fixed moment on a monotonic clock; whoever shares a [Table] between goroutines guards it with one mutex.
//
// # The life of a slot
//
// A slot is made at the first accepted handshake ([Table.Attach]), which also opens a session: a number that names this
// one attachment. Every later call of that connection gives its session, so that a connection that was replaced can
// neither ack for its successor nor detach it. When the connection ends, the slot is detached ([Table.Detach]) and
// keeps its promise for the reconnect window; then it is reaped ([Table.Reap]).
//
// # Which offset a slot keeps
//
// A slot's need is the offset that its replica would come back with. After a crash of its process that is the applied
// offset, but after a loss of power only the durable one, so the need is the DURABLE ack. Before the first ack of a new
// slot, or for a replica that cannot tell (it acks durable 0), it is where the session began, then the applied ack. A
// slot in a full sync needs the position of its snapshot. The price is that a replica which never syncs holds log up
// to the disk budget; the budget beats the slots in any case.
//
// # Who counts for WAIT
//
// A replica id counts once ([Table.Count]), however many addresses or sessions it had, and only while it is attached
// and not in a full sync on each shard that was asked about, by acks of the shard's present generation. A detached
// replica is not counted: what it acked was true, but whether it will ever come back is not known. Nor is one that has
// undone a surplus and has not settled yet: it could not take the primary's place.
//
// # Invariants
//
//  1. A slot has at most one session, and a session at most one slot.
//  2. Durable <= Applied <= Received <= Sent, for acks of one session.
//  3. Only an ack moves an acked offset up. A new session may lower it, to where the replica says that it is; a new
//     generation or snapshot voids it.
//  4. An attached slot is never reaped; a detached one is reaped at now - detached >= window, not a moment before, and what the primary
//     sleeps through does not count ([Table.Extend]).
//  5. A slot without a session that waits for a snapshot which was never made does not exist: it has nothing to keep.
package slottable

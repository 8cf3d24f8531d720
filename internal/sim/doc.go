// Package sim runs whole systems of nodes in simulated time, over a simulated network and simulated disks, by a schedule
// that is drawn from a seed, and checks invariants after each step. `replctl simulate` runs it for users.
//
//	r := sim.Run(sim.Generate(seed, sim.Options{}), nil)
//	if r.Violation != nil {
//		small, r := sim.Shrink(scenario, 200)
//	}
//
// The nodes are real ones, package internal/node with both halves, Pebble and the log; only clock, network and files are
// not. A step is a few commands of a client, a WAIT, a cut, a one-way hole, a slow link, a kill or a loss of power in the
// middle of an operation of the disk, a clean stop, a promotion, a handover, a retarget, an outage longer than the
// reconnect window, a full disk, a trimmed log, an emptied data directory. At the end all faults end, an operator makes
// one primary and has everybody follow it.
//
// # Invariants
//
//  1. Every shard of every node holds, at its position, exactly what the mutations before that position make, along its
//     lineage; and nobody has another mutation in the place of one that somebody has.
//  2. What a node has acknowledged (a primary by a reply, a replica by an ack) it has for as long as its history does not
//     fork from there: through kills as applied, through losses of power as durable. A node that is promoted because it
//     has everything that the others have, or by a handover, has what they have acknowledged. A WAIT or WAITAOF counts no
//     replica that has not said so.
//  3. A session resumes exactly where the two histories agree, rewinds exactly to where they part, and syncs in full only for
//     a reason that is true. No generation begins but by a promotion, a loss of power, or in a new directory.
//  4. No call hangs: starts, stops, promotions, retargets and commands return within their limits. No node refuses to
//     start after any crash. The run ends.
//  5. No primary without data wipes a shard that has some.
//  6. An ack claims received >= applied >= durable, and no more than what the replica has at that moment.
//  7. The backlog's memory, its files once they are trimmed, and inboxes stay within their limits.
//  8. Within two minutes of simulated time behind the last fault all nodes are at the same position of every shard.
//
// # What a seed repeats
//
// The schedule, every delay, split and truncation of the network, jitter of links, and what a loss of power leaves are
// drawn from the seed; each event of the network has an instant of its own; the driver waits until nobody can go on before
// it looks. Left to the runtime are the order in which goroutines run that are woken at one instant, the choice of a select
// with two ready cases, the order of maps, and random ids. So the same seed gives, most of the time, the same transcript, to
// the nanosecond, but not with certainty; docs/testing.md has figures. Runs are most alike on one processor, which is what
// replctl simulate uses.
//
// # What it leaves out
//
// Connections of clients (they call the keyspace, as connections do), real sockets and their options, clocks that differ
// or jump, bit rot, and a disk that is full for Pebble's manifest: there the engine parks a goroutine for the rest of the
// process, which no bubble outlives.
package sim

// Package node is a node of either role: a data directory, the keyspace in it, and the two halves of replication, one
// that serves replicas (package primary) and one that follows a primary (package replica). The halves know nothing of each
// other; they are joined here, by the interfaces [Server] and [Follower], so that a role can move at run time.
//
//	role      keyspace     shards      Server            Follower
//	primary   writable     writable    serves replicas   none
//	replica   read-only    following   serves replicas   follows Options.Primary, or what Follow said last
//
// # Invariants
//
//  1. The role on disk (node.json) changes before anything acts on it. A crash in a change leaves the new role, and the next
//     start completes it: a shard that followed begins a generation of its own when it is opened as writable.
//  2. No shard takes a client's write before every shard has begun its generation, and none takes a frame of a primary after
//     that.
//  3. The keyspace refuses writes before the first shard ceases to take them, and takes them after the last one does.
//  4. A promotion waits for nobody: what is in the inboxes is applied, everything else of the old primary is left.
//  5. Changes of role come one after the other.
//
// One goroutine, the keeper, reveals data sets as they become complete, keeps what reads and writes are refused by up to
// date, and samples write rates. See docs/guarantees.md for what a change of role promises.
package node

// Package primary serves a node's shards to replicas: one port and one listener a shard, one session a connection. It
// decides who resumes and who needs a full sync, streams the log, ships snapshots, and remembers in slots what each
// replica has. [Open] makes a whole primary of a data directory; [NewServer] serves shards that somebody else opened.
//
// # A session
//
//	HELLO ->            the replica says who and where it is           handshake.go
//	<- RESUME           ... its position is held, or                   decide.go, fork.go
//	<- REWIND, WANT-KEYS -> <- VALUES, VALUES-END                      rewind.go
//	<- FULLSYNC         a snapshot is made, or shared, or gone on with snapshots.go
//	<- MANIFEST, FETCH -> <- chunks, SNAPSHOT-END (again and again)    fullsync.go
//	<- frames, heartbeats                                              feeder.go
//	acks ->                                                            session.go
//
// Two goroutines serve a session: the listener is the only reader of the connection, the feeder its only writer. Either
// ends the session with a cause; [classify] says what the cause means to the peer and to the log.
//
// # Goroutines
//
//	accept    one a port; NewServer to the listener's Close                        server.go
//	serve     one a connection; it becomes the session's listener                  handshake.go, session.go
//	feeder    one a session; it owns every write                                   feeder.go, fullsync.go
//	maker     one a snapshot that is being made; until it is ready or failed       snapshots.go
//	keeper    one a server: reaps slots, removes snapshots, saves slots.json       keeper.go
//
// [Server.Close] waits for all of them.
//
// # Invariants
//
//  1. The log is asked whether it holds a replica's offset by opening the reader that will stream from there; nothing is
//     read before a wait and used after it.
//  2. A slot is attached before RESUME is sent, and the offset is still held after that. From then on retention keeps it,
//     within the disk budget. The budget beats every slot and every snapshot: a session that loses its offset ends.
//  3. A snapshot is never held in memory, and is immutable. The log is kept from a snapshot's position on while a slot is
//     in a full sync from it.
//  4. Nothing that a replica does or fails to do makes a shard wait: feeders read published frames and never hold a lock
//     of the shard, and a stuck write ends the session after [WriteTimeout].
//  5. Only an ack moves a slot's acks, and acks are counted only within the shard's present generation.
//  6. A session speaks of the lineage that it was welcomed with: no frame, heartbeat or values-end leaves it once the shard's is
//     another one.
//
// # Locks
//
// snapshots.mu, then Server.mu. Neither is held across IO, nor while a shard or a log is called that could wait.
package primary

// Package keyspace is the router between connections and shards: it takes whole pipelines of commands, sends every
// shard its part of them at once, and puts the replies back in order.
//
//	ks := keyspace.New(keyspace.Options{})
//	ks.SetShards(shards)
//	s := ks.NewSession(hook)
//	end, err := s.Exec(pipeline, sink)
//
// # How a pipeline runs
//
// Commands whose keys lie on one shard are steps of that shard's part of the pipeline: one job a shard, all shards side
// by side, whatever the number of commands. DEL, MSET and their like over several shards are split into a step for each,
// and their replies merged. Other commands over several shards (RENAME, COPY, MSETNX, FLUSHALL, EXEC) hold those shards:
// their loops are parked, in ascending order, at the beginning of a group, while the session's goroutine executes on
// all of them. A command that only reads one key is executed at once, beside its shard (beside.go). KEYS, SCAN, DBSIZE and
// RANDOMKEY read views, beside the loops. PING, INFO and their like are the hook's.
//
// # Invariants
//
//  1. Replies come in the order of the commands, one each, whatever the order of execution.
//  2. On one shard, a connection's commands run in the order in which it sent them. Commands that are neither routed nor
//     split wait until everything before them has been executed and run before anything behind them.
//  3. What a command writes on one shard is one mutation: all of it happens or none. A command over several shards is one
//     mutation of each; what is held is seen by no one in between, but a crash, or a disk that fails, may take one
//     shard's mutation and not the other's (docs/guarantees.md).
//  4. A reply that says that something was written is given only after its group was committed. If the group fails, its
//     replies are forgotten: writes get the shard's error, reads are run again.
//  5. A session holds at most Options.ReplyBytes of replies, plus what one command replies, plus one value a shard:
//     parts stop, and go on when what they replied has been sent.
//  6. EXEC decides about watched keys while it has the shards of all of them in its hands.
//  7. A write looks at the mode (read-only, held) once more on the loops of its shards, so what was planned in another mode
//     is refused or held, and a job behind a change of mode is a barrier to all writes of the mode before (gate.go).
//
// # Goroutines
//
// The package starts none that outlives a call. A part belongs to its shard's turn from Offer until Committed, and to the
// session otherwise; a watch table belongs to its shard's turn. A session takes the turn itself where nobody has it.
package keyspace

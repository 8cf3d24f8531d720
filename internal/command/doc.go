// Package command is what Understudy knows about each command: the table of names, arities, flags and keys that the
// server, the router and COMMAND read, and the handlers of the commands that work on keys.
//
// # The table
//
// Every command that a node answers has its entry, whether or not its handler lives here: [Command.Run] is nil for the
// commands about connections and about the whole node, which internal/keyspace and internal/server carry out. A new
// command is one row in one of the table_*.go files, and, unless it is Redis's, its documentation in the row.
//
// # Handlers
//
// A handler turns arguments into a reply and a mutation. Its rules:
//
//  1. It validates everything before its first write. After a write it cannot fail, so a failed command leaves nothing
//     in the log (pitfall 22).
//  2. It writes effects, not verbs: values, and deadlines as absolute milliseconds computed from [engine.Tx.Now]. The
//     same arguments on the same data at the same Now give the same mutation (pitfall 23).
//  3. All reads and writes go through the one Tx that [Ctx.Tx] returns for the key (pitfall 27), so a handler works
//     alike in a group of one shard and in an exclusive section over several shards (RENAME, COPY, MSETNX, EXEC).
//  4. It never holds a value of Get over the next Get of the same Tx: it copies to the Ctx's scratch first.
//  5. A storage error shows as an absent key; whoever runs the handler checks [engine.Tx.Err] behind it, rolls back, and
//     replaces the reply.
//
// Replies and error texts are Redis 7.0's byte for byte; the differential test in this package holds them against a
// real redis-server. The summaries and argument lists in docs.json are Redis's, see docs.LICENSE.
package command

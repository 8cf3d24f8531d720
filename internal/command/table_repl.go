package command

// replCommands are the commands about replication: Redis's, then our own. Ours take no subcommands in the table, so that
// a verb's handler parses its own words.
var replCommands = []Command{
	{Name: "failover", Arity: -1, Flags: Admin | NoScript | Stale},
	{Name: "replicaof", Arity: 3, Flags: Admin | NoScript | Stale | NoAsyncLoading},
	{Name: "role", Arity: 1, Flags: NoScript | Loading | Stale | Fast, Extra: admins | Dangerous},
	{Name: "slaveof", Arity: 3, Flags: Admin | NoScript | Stale | NoAsyncLoading},
	{Name: "wait", Arity: 3, Flags: NoScript, Extra: Connection, Tips: []string{"request_policy:all_shards", "response_policy:agg_min"}},
	{Name: "waitaof", Arity: 4, Flags: NoScript, Extra: Connection, Tips: []string{"request_policy:all_shards", "response_policy:agg_min"},
		Summary: "Wait until earlier writes are durable here and on replicas", Since: "7.2.0", Group: "generic", Complexity: "O(1)"},

	{Name: "repl.promote", Arity: -1, Flags: Admin | NoScript | Stale | NoAsyncLoading,
		Summary: "Make this node a primary: REPL.PROMOTE [FORCE]", Since: "1.0.0", Group: "replication", Complexity: "O(shards)"},
	{Name: "repl.slot", Arity: -2, Flags: Admin | NoScript | Loading | Stale,
		Summary: "Drop the slots of a replica: REPL.SLOT DROP id", Since: "1.0.0", Group: "replication", Complexity: "O(shards)"},
	{Name: "repl.slots", Arity: 1, Flags: Admin | NoScript | Loading | Stale,
		Summary: "List the slots of all replicas and what they retain", Since: "1.0.0", Group: "replication", Complexity: "O(slots)"},
	{Name: "repl.token", Arity: -1, Flags: NoScript | Fast,
		Summary: "A token of what is written now: REPL.TOKEN [OWN]", Since: "1.0.0", Group: "replication", Complexity: "O(shards)"},
	{Name: "repl.waitfor", Arity: 3, Flags: NoScript | Stale,
		Summary: "Wait until readers see what a token covers: REPL.WAITFOR token milliseconds", Since: "1.0.0", Group: "replication", Complexity: "O(shards)"},
	{Name: "repl.snapshot", Arity: -3, Flags: Admin | NoScript | NoMulti,
		Summary: "Views of a shard at one position, for replctl verify", Since: "1.0.0", Group: "replication", Complexity: "O(entries)"},
	{Name: "repl.status", Arity: -1, Flags: NoScript | Loading | Stale,
		Summary: "This node, shard by shard, as JSON", Since: "1.0.0", Group: "replication", Complexity: "O(shards)"},
}

package command

var sumTips = []string{"request_policy:multi_shard", "response_policy:agg_sum"}

// every is a list of keys up to the last argument.
func every(flags KeyFlags) []KeySpec {
	return []KeySpec{{First: 1, Last: -1, Step: 1, Flags: flags}}
}

// two is a source and a destination.
func two(from, to KeyFlags) []KeySpec {
	return []KeySpec{{First: 1, Step: 1, Flags: from}, {First: 2, Step: 1, Flags: to}}
}

// at2 is the key of a subcommand.
func at2(flags KeyFlags) []KeySpec { return []KeySpec{{First: 2, Step: 1, Flags: flags}} }

var nondeterministic = []string{"nondeterministic_output"}

// keyCommands are the commands on keys of any type.
var keyCommands = []Command{
	{Name: "copy", Arity: -3, Flags: Write | DenyOOM, Extra: Keyspace, Specs: two(KeyRO|KeyAccess, KeyOW|KeyUpdate), Run: copyKey},
	{Name: "del", Arity: -2, Flags: Write, Extra: Keyspace, Merge: MergeSum, Specs: every(KeyRM | KeyDelete), Tips: sumTips, Run: del},
	{Name: "exists", Arity: -2, Flags: ReadOnly | Fast, Extra: Keyspace, Merge: MergeSum, Specs: every(KeyRO), Tips: sumTips, Run: exists},
	{Name: "expire", Arity: -3, Flags: Write | Fast, Extra: Keyspace, Specs: at1(KeyRW | KeyUpdate), Run: expire},
	{Name: "expireat", Arity: -3, Flags: Write | Fast, Extra: Keyspace, Specs: at1(KeyRW | KeyUpdate), Run: expireAt},
	{Name: "expiretime", Arity: 2, Flags: ReadOnly | Fast, Extra: Keyspace, Specs: at1(KeyRO | KeyAccess), Run: expireTime},
	{Name: "object", Arity: -2, Run: object, Sub: []*Command{
		{Name: "object|encoding", Arity: 3, Flags: ReadOnly, Extra: Keyspace, Specs: at2(KeyRO), Tips: nondeterministic, Run: objectEncoding},
		{Name: "object|freq", Arity: 3, Flags: ReadOnly, Extra: Keyspace, Specs: at2(KeyRO), Tips: nondeterministic, Run: objectFreq},
		{Name: "object|help", Arity: 2, Flags: Loading | Stale, Extra: Keyspace, Run: objectHelp},
		{Name: "object|idletime", Arity: 3, Flags: ReadOnly, Extra: Keyspace, Specs: at2(KeyRO), Tips: nondeterministic, Run: objectIdleTime},
		{Name: "object|refcount", Arity: 3, Flags: ReadOnly, Extra: Keyspace, Specs: at2(KeyRO), Tips: nondeterministic, Run: objectRefCount},
	}},
	{Name: "persist", Arity: 2, Flags: Write | Fast, Extra: Keyspace, Specs: at1(KeyRW | KeyUpdate), Run: persist},
	{Name: "pexpire", Arity: -3, Flags: Write | Fast, Extra: Keyspace, Specs: at1(KeyRW | KeyUpdate), Run: pexpire},
	{Name: "pexpireat", Arity: -3, Flags: Write | Fast, Extra: Keyspace, Specs: at1(KeyRW | KeyUpdate), Run: pexpireAt},
	{Name: "pexpiretime", Arity: 2, Flags: ReadOnly | Fast, Extra: Keyspace, Specs: at1(KeyRO | KeyAccess), Run: pexpireTime},
	{Name: "pttl", Arity: 2, Flags: ReadOnly | Fast, Extra: Keyspace, Specs: at1(KeyRO | KeyAccess), Tips: nondeterministic, Run: pttl},
	{Name: "rename", Arity: 3, Flags: Write, Extra: Keyspace, Specs: two(KeyRW|KeyAccess|KeyDelete, KeyOW|KeyUpdate), Run: rename},
	{Name: "renamenx", Arity: 3, Flags: Write | Fast, Extra: Keyspace, Specs: two(KeyRW|KeyAccess|KeyDelete, KeyOW|KeyInsert), Run: renameNX},
	{Name: "touch", Arity: -2, Flags: ReadOnly | Fast, Extra: Keyspace, Merge: MergeSum, Specs: every(KeyRO), Tips: sumTips, Run: exists},
	{Name: "ttl", Arity: 2, Flags: ReadOnly | Fast, Extra: Keyspace, Specs: at1(KeyRO | KeyAccess), Tips: nondeterministic, Run: ttl},
	{Name: "type", Arity: 2, Flags: ReadOnly | Fast, Extra: Keyspace, Specs: at1(KeyRO), Run: typeOf},
	{Name: "unlink", Arity: -2, Flags: Write | Fast, Extra: Keyspace, Merge: MergeSum, Specs: every(KeyRM | KeyDelete), Tips: sumTips, Run: del},

	// Commands on the whole keyspace: the router carries them out over all shards.
	{Name: "dbsize", Arity: 1, Flags: ReadOnly | Fast, Extra: Keyspace, Tips: []string{"request_policy:all_shards", "response_policy:agg_sum"}},
	{Name: "flushall", Arity: -1, Flags: Write, Extra: Keyspace | Dangerous, Tips: []string{"request_policy:all_shards", "response_policy:all_succeeded"}},
	{Name: "flushdb", Arity: -1, Flags: Write, Extra: Keyspace | Dangerous, Tips: []string{"request_policy:all_shards", "response_policy:all_succeeded"}},
	{Name: "keys", Arity: 2, Flags: ReadOnly, Extra: Keyspace | Dangerous, Tips: []string{"request_policy:all_shards", "nondeterministic_output_order"}},
	{Name: "randomkey", Arity: 1, Flags: ReadOnly, Extra: Keyspace, Tips: []string{"request_policy:all_shards", "nondeterministic_output"}},
	{Name: "scan", Arity: -2, Flags: ReadOnly, Extra: Keyspace, Tips: []string{"nondeterministic_output", "request_policy:special"}},
}

package command

// at1 is the usual key: the first argument behind the name.
func at1(flags KeyFlags) []KeySpec { return []KeySpec{{First: 1, Step: 1, Flags: flags}} }

// stringCommands are the commands on strings.
var stringCommands = []Command{
	{Name: "append", Arity: 3, Flags: Write | DenyOOM | Fast, Extra: String, Specs: at1(KeyRW | KeyInsert), Run: appendTo},
	{Name: "decr", Arity: 2, Flags: Write | DenyOOM | Fast, Extra: String, Specs: at1(KeyRW | KeyAccess | KeyUpdate), Run: decr},
	{Name: "decrby", Arity: 3, Flags: Write | DenyOOM | Fast, Extra: String, Specs: at1(KeyRW | KeyAccess | KeyUpdate), Run: decrBy},
	{Name: "get", Arity: 2, Flags: ReadOnly | Fast, Extra: String, Specs: at1(KeyRO | KeyAccess), Run: get},
	{Name: "getdel", Arity: 2, Flags: Write | Fast, Extra: String, Specs: at1(KeyRW | KeyAccess | KeyDelete), Run: getDel},
	{Name: "getex", Arity: -2, Flags: Write | Fast, Extra: String, Run: getEx, Specs: []KeySpec{{First: 1, Step: 1,
		Flags: KeyRW | KeyAccess | KeyUpdate, Notes: "RW and UPDATE because it changes the TTL"}}},
	{Name: "getrange", Arity: 4, Flags: ReadOnly, Extra: String, Specs: at1(KeyRO | KeyAccess), Run: getRange},
	{Name: "getset", Arity: 3, Flags: Write | DenyOOM | Fast, Extra: String, Specs: at1(KeyRW | KeyAccess | KeyUpdate), Run: getSet},
	{Name: "incr", Arity: 2, Flags: Write | DenyOOM | Fast, Extra: String, Specs: at1(KeyRW | KeyAccess | KeyUpdate), Run: incr},
	{Name: "incrby", Arity: 3, Flags: Write | DenyOOM | Fast, Extra: String, Specs: at1(KeyRW | KeyAccess | KeyUpdate), Run: incrBy},
	{Name: "incrbyfloat", Arity: 3, Flags: Write | DenyOOM | Fast, Extra: String, Specs: at1(KeyRW | KeyAccess | KeyUpdate), Run: incrByFloat},
	{Name: "mget", Arity: -2, Flags: ReadOnly | Fast, Extra: String, Merge: MergeArray, Run: mget,
		Specs: []KeySpec{{First: 1, Last: -1, Step: 1, Flags: KeyRO | KeyAccess}}, Tips: []string{"request_policy:multi_shard"}},
	{Name: "mset", Arity: -3, Flags: Write | DenyOOM, Extra: String, Merge: MergeOK, Run: mset,
		Specs: []KeySpec{{First: 1, Last: -1, Step: 2, Flags: KeyOW | KeyUpdate}},
		Tips:  []string{"request_policy:multi_shard", "response_policy:all_succeeded"}},
	{Name: "msetnx", Arity: -3, Flags: Write | DenyOOM, Extra: String, Run: msetNX,
		Specs: []KeySpec{{First: 1, Last: -1, Step: 2, Flags: KeyOW | KeyInsert}},
		Tips:  []string{"request_policy:multi_shard", "response_policy:agg_min"}},
	{Name: "psetex", Arity: 4, Flags: Write | DenyOOM, Extra: String, Specs: at1(KeyOW | KeyUpdate), Run: psetEx},
	{Name: "set", Arity: -3, Flags: Write | DenyOOM, Extra: String, Run: set, Specs: []KeySpec{{First: 1, Step: 1,
		Flags: KeyRW | KeyAccess | KeyUpdate | KeyVariable, Notes: "RW and ACCESS due to the optional `GET` argument"}}},
	{Name: "setex", Arity: 4, Flags: Write | DenyOOM, Extra: String, Specs: at1(KeyOW | KeyUpdate), Run: setEx},
	{Name: "setnx", Arity: 3, Flags: Write | DenyOOM | Fast, Extra: String, Specs: at1(KeyOW | KeyInsert), Run: setNX},
	{Name: "setrange", Arity: 4, Flags: Write | DenyOOM, Extra: String, Specs: at1(KeyRW | KeyUpdate), Run: setRange},
	{Name: "strlen", Arity: 2, Flags: ReadOnly | Fast, Extra: String, Specs: at1(KeyRO), Run: strlen},
	{Name: "substr", Arity: 4, Flags: ReadOnly, Extra: String, Specs: at1(KeyRO | KeyAccess), Run: getRange},
}

package command

// connectionFlags are those of the commands that a connection may send in any state.
const connectionFlags = NoScript | Loading | Stale | Fast | NoAuth | AllowBusy

var unordered = []string{"nondeterministic_output_order"}

// serverCommands are the commands about connections, transactions and the node. None works on a key by itself, so none
// has a handler here.
var serverCommands = []Command{
	// Connections.
	{Name: "auth", Arity: -2, Prompt: true, Flags: connectionFlags, Extra: Connection},
	{Name: "client", Arity: -2, Sub: []*Command{
		{Name: "client|getname", Arity: 2, Prompt: true, Flags: NoScript | Loading | Stale, Extra: Connection},
		{Name: "client|getredir", Arity: 2, Prompt: true, Flags: NoScript | Loading | Stale, Extra: Connection},
		{Name: "client|help", Arity: 2, Flags: Loading | Stale, Extra: Connection},
		{Name: "client|id", Arity: 2, Prompt: true, Flags: NoScript | Loading | Stale, Extra: Connection},
		{Name: "client|info", Arity: 2, Prompt: true, Flags: NoScript | Loading | Stale, Extra: Connection, Tips: nondeterministic},
		{Name: "client|kill", Arity: -3, Flags: Admin | NoScript | Loading | Stale, Extra: Connection},
		{Name: "client|list", Arity: -2, Flags: Admin | NoScript | Loading | Stale, Extra: Connection, Tips: nondeterministic},
		{Name: "client|no-evict", Arity: 3, Prompt: true, Flags: Admin | NoScript | Loading | Stale, Extra: Connection},
		{Name: "client|no-touch", Arity: 3, Prompt: true, Flags: NoScript | Loading | Stale, Extra: Connection,
			Summary: "Controls whether commands sent by the client will alter the LRU/LFU of the keys they access.", Since: "7.2.0", Group: "connection", Complexity: "O(1)"},
		{Name: "client|reply", Arity: 3, Flags: NoScript | Loading | Stale, Extra: Connection},
		{Name: "client|setinfo", Arity: 4, Prompt: true, Flags: NoScript | Loading | Stale, Extra: Connection,
			Summary: "Set client or connection specific info", Since: "7.2.0", Group: "connection", Complexity: "O(1)"},
		{Name: "client|setname", Arity: 3, Prompt: true, Flags: NoScript | Loading | Stale, Extra: Connection},
		{Name: "client|unpause", Arity: 2, Flags: Admin | NoScript | Loading | Stale, Extra: Connection},
	}},
	{Name: "echo", Arity: 2, Prompt: true, Flags: Loading | Stale | Fast, Extra: Connection},
	{Name: "hello", Arity: -1, Prompt: true, Flags: connectionFlags, Extra: Connection},
	{Name: "ping", Arity: -1, Prompt: true, Flags: Fast, Extra: Connection, Tips: []string{"request_policy:all_shards", "response_policy:all_succeeded"}},
	{Name: "quit", Arity: -1, Flags: connectionFlags, Extra: Connection},
	{Name: "reset", Arity: 1, Flags: connectionFlags, Extra: Connection},
	{Name: "select", Arity: 2, Prompt: true, Flags: Loading | Stale | Fast, Extra: Connection},

	// Transactions.
	{Name: "discard", Arity: 1, Flags: NoScript | Loading | Stale | Fast | AllowBusy, Extra: Transaction},
	{Name: "exec", Arity: 1, Flags: NoScript | Loading | Stale | SkipSlowlog, Extra: Transaction},
	{Name: "multi", Arity: 1, Flags: NoScript | Loading | Stale | Fast | AllowBusy, Extra: Transaction},
	{Name: "unwatch", Arity: 1, Flags: NoScript | Loading | Stale | Fast | AllowBusy, Extra: Transaction},
	{Name: "watch", Arity: -2, Flags: NoScript | Loading | Stale | Fast | AllowBusy, Extra: Transaction, Specs: every(KeyRO)},

	// The node.
	{Name: "command", Arity: -1, Flags: Loading | Stale, Extra: Connection, Tips: unordered, Sub: []*Command{
		{Name: "command|count", Arity: 2, Flags: Loading | Stale, Extra: Connection},
		{Name: "command|docs", Arity: -2, Flags: Loading | Stale, Extra: Connection, Tips: unordered},
		{Name: "command|getkeys", Arity: -4, Flags: Loading | Stale, Extra: Connection},
		{Name: "command|getkeysandflags", Arity: -4, Flags: Loading | Stale, Extra: Connection},
		{Name: "command|help", Arity: 2, Flags: Loading | Stale, Extra: Connection},
		{Name: "command|info", Arity: -2, Flags: Loading | Stale, Extra: Connection, Tips: unordered},
		{Name: "command|list", Arity: -2, Flags: Loading | Stale, Extra: Connection, Tips: unordered},
	}},
	{Name: "config", Arity: -2, Sub: []*Command{
		{Name: "config|get", Arity: -3, Flags: Admin | NoScript | Loading | Stale},
		{Name: "config|help", Arity: 2, Flags: Loading | Stale},
		{Name: "config|resetstat", Arity: 2, Flags: Admin | NoScript | Loading | Stale},
		{Name: "config|rewrite", Arity: 2, Flags: Admin | NoScript | Loading | Stale},
		{Name: "config|set", Arity: -4, Flags: Admin | NoScript | Loading | Stale, Tips: []string{"request_policy:all_nodes", "response_policy:all_succeeded"}},
	}},
	{Name: "info", Arity: -1, Flags: Loading | Stale, Extra: Dangerous, Tips: []string{"nondeterministic_output", "request_policy:all_shards", "response_policy:special"}},
	{Name: "shutdown", Arity: -1, Flags: Admin | NoScript | Loading | Stale | NoMulti | AllowBusy},
	{Name: "time", Arity: 1, Prompt: true, Flags: Loading | Stale | Fast, Tips: nondeterministic},
}

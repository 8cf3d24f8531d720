package command

import (
	"bytes"

	"github.com/understudy-kv/understudy/internal/glob"
	"github.com/understudy-kv/understudy/internal/resp"
)

// Describe answers COMMAND and its subcommands from the table. args is the whole request, whose arity is checked here.
func Describe(w *resp.Writer, args [][]byte) {
	c, text := Find(args)
	if c == nil {
		w.Error(text)
		return
	}
	switch c.Name {
	case "command":
		describeInfo(w, nil)
	case "command|info":
		describeInfo(w, args[2:])
	case "command|docs":
		describeDocs(w, args[2:])
	case "command|count":
		w.Int(int64(len(sorted)))
	case "command|list":
		describeList(w, args[2:])
	case "command|getkeys":
		describeKeys(w, args[2:], false)
	case "command|getkeysandflags":
		describeKeys(w, args[2:], true)
	case "command|help":
		replyHelp(w, "COMMAND",
			"(no subcommand)",
			"    Return details about all Redis commands.",
			"COUNT",
			"    Return the total number of commands in this Redis server.",
			"LIST",
			"    Return a list of all commands in this Redis server.",
			"INFO [<command-name> ...]",
			"    Return details about multiple Redis commands.",
			"    If no command names are given, documentation details for all",
			"    commands are returned.",
			"DOCS [<command-name> ...]",
			"    Return documentation details about multiple Redis commands.",
			"    If no command names are given, documentation details for all",
			"    commands are returned.",
			"GETKEYS <full-command>",
			"    Return the keys from a full Redis command.",
			"GETKEYSANDFLAGS <full-command>",
			"    Return the keys and the access flags from a full Redis command.")
	}
}

// named finds a command by its full name: "get", or "client|list".
func named(name []byte) *Command {
	container, sub, has := bytes.Cut(name, []byte("|"))
	c := Lookup(container)
	if has && c != nil {
		c = LookupSub(c, sub)
	}
	return c
}

func describeInfo(w *resp.Writer, names [][]byte) {
	if len(names) == 0 {
		w.Array(len(sorted))
		for _, c := range sorted {
			replyInfo(w, c)
		}
		return
	}
	w.Array(len(names))
	for _, name := range names {
		if c := named(name); c != nil {
			replyInfo(w, c)
		} else {
			w.Null()
		}
	}
}

func describeDocs(w *resp.Writer, names [][]byte) {
	found := sorted
	if len(names) > 0 {
		found = nil
		for _, name := range names {
			if c := named(name); c != nil {
				found = append(found, c)
			}
		}
	}
	w.Map(len(found))
	for _, c := range found {
		replyDocs(w, c)
	}
}

// replyStatuses writes a set of simple strings.
func replyStatuses(w *resp.Writer, values []string) {
	w.Set(len(values))
	for _, v := range values {
		w.Simple(v)
	}
}

// bitNames lists the names of the bits that are set, each with the prefix.
func bitNames(bits uint32, names []string, prefix string) (set []string) {
	for i, name := range names {
		if bits&(1<<i) != 0 {
			set = append(set, prefix+name)
		}
	}
	return set
}

// categories are the ACL categories, those that follow from the flags included.
func (c *Command) categories() Categories {
	all := c.Extra
	for flag, implied := range map[Flags]Categories{Write: writes, ReadOnly: reads, Admin: admins | Dangerous, Fast: fasts} {
		if c.Flags&flag != 0 {
			all |= implied
		}
	}
	if c.Flags&Fast == 0 {
		all |= slows
	}
	return all
}

// replyInfo writes a command's entry of COMMAND INFO.
func replyInfo(w *resp.Writer, c *Command) {
	w.Array(10)
	w.BulkString(c.Name)
	w.Int(int64(c.Arity))
	replyStatuses(w, bitNames(uint32(c.Flags), flagNames[:], ""))
	first, last, step := c.first, c.last, c.step
	if len(c.Specs) == 0 {
		first, last, step = 0, 0, 0
	}
	w.Int(int64(first))
	w.Int(int64(last))
	w.Int(int64(step))
	replyStatuses(w, bitNames(uint32(c.categories()), categoryNames[:], "@"))
	w.Set(len(c.Tips))
	for _, tip := range c.Tips {
		w.BulkString(tip)
	}
	w.Set(len(c.Specs))
	for _, s := range c.Specs {
		replySpec(w, s)
	}
	w.Set(len(c.Sub))
	for _, s := range c.Sub {
		replyInfo(w, s)
	}
}

func replySpec(w *resp.Writer, s KeySpec) {
	f := fields{body: resp.Writer{Proto: w.Proto}}
	f.text("notes", s.Notes)
	f.set("flags", bitNames(uint32(s.Flags), keyFlagNames[:], ""))
	b := f.add("begin_search")
	b.Map(2)
	b.BulkString("type")
	b.BulkString("index")
	b.BulkString("spec")
	b.Map(1)
	b.BulkString("index")
	b.Int(int64(s.First))
	b = f.add("find_keys")
	b.Map(2)
	b.BulkString("type")
	b.BulkString("range")
	b.BulkString("spec")
	b.Map(3)
	b.BulkString("lastkey")
	b.Int(int64(s.Last))
	b.BulkString("keystep")
	b.Int(int64(s.Step))
	b.BulkString("limit")
	b.Int(0)
	f.writeTo(w)
}

// describeList is COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern].
func describeList(w *resp.Writer, filter [][]byte) {
	keep := func(*Command) bool { return true }
	switch {
	case len(filter) == 0:
	case len(filter) != 3 || !is(filter[0], "filterby"):
		w.Error(errSyntax)
		return
	case is(filter[1], "module"):
		keep = func(*Command) bool { return false }
	case is(filter[1], "aclcat"):
		var want Categories
		for i, name := range categoryNames {
			if is(filter[2], name) {
				want = 1 << i
			}
		}
		keep = func(c *Command) bool { return c.categories()&want != 0 }
	case is(filter[1], "pattern"):
		keep = func(c *Command) bool { return glob.Match(filter[2], []byte(c.Name), true) }
	default:
		w.Error(errSyntax)
		return
	}
	var names []string
	add := func(c *Command) {
		if keep(c) {
			names = append(names, c.Name)
		}
	}
	for _, c := range sorted {
		add(c)
		for _, s := range c.Sub {
			if len(filter) > 0 { // without a filter, Redis leaves subcommands out
				add(s)
			}
		}
	}
	w.Array(len(names))
	for _, name := range names {
		w.BulkString(name)
	}
}

// describeKeys is COMMAND GETKEYS, or GETKEYSANDFLAGS.
func describeKeys(w *resp.Writer, call [][]byte, flags bool) {
	c := Lookup(call[0])
	if c != nil && len(c.Sub) > 0 && len(call) > 1 {
		c = LookupSub(c, call[1])
	}
	switch {
	case c == nil:
		w.Error("ERR Invalid command specified")
		return
	case len(c.Specs) == 0:
		w.Error("ERR The command has no key arguments")
		return
	case !c.ArityOK(len(call)):
		w.Error("ERR Invalid number of arguments specified for command")
		return
	}
	type found struct {
		key   []byte
		flags KeyFlags
	}
	var keys []found
	for _, s := range c.Specs {
		last := s.First + s.Last
		if s.Last < 0 {
			last = len(call) + s.Last
		}
		for i := s.First; i <= last && i < len(call); i += s.Step {
			keys = append(keys, found{call[i], s.flagsIn(call)})
		}
	}
	w.Array(len(keys))
	for _, k := range keys {
		if flags {
			w.Array(2)
		}
		w.Bulk(k.key)
		if flags {
			replyStatuses(w, bitNames(uint32(k.flags), keyFlagNames[:], ""))
		}
	}
}

// flagsIn is what the command does with the keys in this call. Only SET's flags vary: it reads the key if it says GET.
func (s KeySpec) flagsIn(call [][]byte) KeyFlags {
	if s.Flags&KeyVariable == 0 {
		return s.Flags
	}
	for _, a := range call[3:] {
		if is(a, "get") {
			return s.Flags &^ KeyVariable
		}
	}
	return KeyOW | KeyUpdate
}

package command

import (
	"bytes"
	"sort"
	"strings"
)

// maxName is longer than every command's name.
const maxName = 32

var (
	byName   = map[string]*Command{}   // top-level commands
	children = map[*Command]subTable{} // the subcommands of each container, under their names without the container's
	sorted   []*Command                // top-level commands by name
)

type subTable map[string]*Command

func init() {
	for _, rows := range [][]Command{stringCommands, keyCommands, serverCommands, replCommands} {
		for i := range rows {
			add(&rows[i])
		}
	}
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Name < sorted[j].Name })
}

func add(c *Command) {
	if byName[c.Name] != nil || len(c.Name) >= maxName {
		panic("command: " + c.Name + " is in the table twice, or too long")
	}
	byName[c.Name] = c
	sorted = append(sorted, c)
	subs := subTable{}
	for _, s := range c.Sub {
		s.derive()
		subs[strings.TrimPrefix(s.Name, c.Name+"|")] = s
	}
	children[c] = subs
	c.derive()
}

// derive fills first, last and step from the key specs; a container's are those of its subcommands. It puts the checks
// that every keyed command needs before Run.
func (c *Command) derive() {
	for i, k := range c.Specs {
		last := k.Last
		if last >= 0 {
			last += k.First
		}
		if i == 0 {
			c.first, c.step = k.First, k.Step
		}
		c.last = last
	}
	for _, s := range c.Sub {
		if s.first != 0 {
			c.first, c.last, c.step = s.first, s.last, s.step
		}
	}
	if run := c.Run; run != nil && c.first != 0 {
		c.Run = func(x *Ctx) {
			if text := c.check(x.Args); text != "" {
				x.Out.Error(text)
				return
			}
			run(x)
		}
	}
}

// Lookup finds a top-level command, whatever the case of its letters, or returns nil. It allocates nothing.
func Lookup(name []byte) *Command {
	var lower [maxName]byte
	if len(name) > len(lower) {
		return nil
	}
	for i, b := range name {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		lower[i] = b
	}
	return byName[string(lower[:len(name)])]
}

// LookupSub finds the container's subcommand, whatever the case of its letters, or returns nil.
func LookupSub(container *Command, name []byte) *Command {
	return children[container][string(bytes.ToLower(name))]
}

// Find resolves a request to its command, a container's subcommand included, and checks what Redis checks before it
// queues or runs anything: that the command exists and that the number of arguments fits. If it does not, Find returns
// nil and the text of the error reply.
func Find(args [][]byte) (*Command, string) {
	c := Lookup(args[0])
	if c == nil {
		return nil, UnknownCommand(args)
	}
	if len(c.Sub) > 0 && len(args) > 1 {
		sub := LookupSub(c, args[1])
		if sub == nil {
			return nil, UnknownSubcommand(args)
		}
		c = sub
	}
	if !c.ArityOK(len(args)) {
		return nil, WrongArity(c.Name)
	}
	return c, ""
}

package server

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/resp"
)

// registry knows the open connections.
type registry struct {
	mu struct {
		sync.Mutex
		byID map[int64]*conn
		last int64
	}
}

func (r *registry) init() { r.mu.byID = map[int64]*conn{} }

func (r *registry) add(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.last++
	c.id = r.mu.last
	r.mu.byID[c.id] = c
}

func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.byID, c.id)
}

func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mu.byID)
}

// all lists the connections by id.
func (r *registry) all() []*conn {
	r.mu.Lock()
	list := make([]*conn, 0, len(r.mu.byID))
	for _, c := range r.mu.byID {
		list = append(list, c)
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b *conn) int { return int(a.id - b.id) })
	return list
}

func (r *registry) each(f func(*conn)) {
	for _, c := range r.all() {
		f(c)
	}
}

// describe is the connection's line of CLIENT LIST. Figures that have no meaning here are Redis's for "none".
func (c *conn) describe(now time.Time) string {
	n, cmd := c.names.Load(), "NULL"
	if last := c.last.Load(); last != nil {
		cmd = last.Name
	}
	flags := ""
	if c.queued.Load() >= 0 {
		flags += "x"
	}
	if c.waiting.Load() {
		flags += "b"
	}
	if c.noEvict.Load() {
		flags += "e"
	}
	if c.noTouch.Load() {
		flags += "T"
	}
	if flags == "" {
		flags = "N"
	}
	idle := now.Sub(time.Unix(0, c.active.Load()))
	return fmt.Sprintf("id=%d addr=%s laddr=%s fd=0 name=%s age=%d idle=%d flags=%s db=0 sub=0 psub=0 ssub=0 multi=%d "+
		"qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=%d events=r cmd=%s user=default "+
		"redir=-1 resp=%d lib-name=%s lib-ver=%s",
		c.id, c.nc.RemoteAddr(), c.nc.LocalAddr(), n.name, int(now.Sub(c.created).Seconds()), int(max(idle, 0).Seconds()), flags,
		c.queued.Load(), c.memory.Load(), cmd, c.proto.Load(), n.lib, n.version)
}

// client is CLIENT.
func client(c *call) {
	switch c.sub() {
	case "id":
		c.w.Int(c.id)
	case "getname":
		if n := c.names.Load().name; n != "" {
			c.w.BulkString(n)
			return
		}
		c.w.Null()
	case "setname":
		if !validClientName(c.arg(2)) {
			c.w.Error(errClientName)
			return
		}
		c.rename(func(n *names) { n.name = c.arg(2) })
		c.w.OK()
	case "setinfo":
		clientSetInfo(c)
	case "info":
		c.w.Verbatim("txt", c.describe(time.Now())+"\n")
	case "list":
		clientList(c)
	case "kill":
		clientKill(c)
	case "reply":
		clientReply(c)
	case "no-evict":
		c.flag(c.noEvict.Store)
	case "no-touch":
		c.flag(c.noTouch.Store)
	case "unpause":
		c.w.OK() // nothing here pauses clients
	case "getredir":
		c.w.Int(-1) // nothing here tracks keys
	default:
		replyLines(c.w, clientHelp)
	}
}

// flag is a subcommand's ON or OFF.
func (c *call) flag(set func(bool)) {
	switch {
	case c.is(2, "on"):
		set(true)
	case c.is(2, "off"):
		set(false)
	default:
		c.w.Error(errSyntax)
		return
	}
	c.w.OK()
}

func clientReply(c *call) {
	switch {
	case c.is(2, "on"):
		c.session.SetReply(keyspace.ReplyOn)
		c.w.OK()
	case c.is(2, "off"):
		c.session.SetReply(keyspace.ReplyOff)
	case c.is(2, "skip"):
		c.session.SetReply(keyspace.ReplySkip)
	default:
		c.w.Error(errSyntax)
	}
}

func clientSetInfo(c *call) {
	value := c.arg(3)
	var set func(*names)
	switch {
	case c.is(2, "lib-name"):
		set = func(n *names) { n.lib = value }
	case c.is(2, "lib-ver"):
		set = func(n *names) { n.version = value }
	default:
		c.w.Error("ERR Unrecognized option '" + c.arg(2) + "'")
		return
	}
	if !validClientName(value) {
		c.w.Error("ERR " + strings.ToLower(c.arg(2)) + " cannot contain spaces, newlines or special characters.")
		return
	}
	c.rename(set)
	c.w.OK()
}

// clientType maps Redis's client types to whether connections here are of it: all are normal ones, since replicas use
// ports of their own.
func clientType(s string) (normal, ok bool) {
	switch strings.ToLower(s) {
	case "normal":
		return true, true
	case "slave", "replica", "pubsub", "master":
		return false, true
	}
	return false, false
}

func clientList(c *call) {
	list := c.s.clients.all()
	switch {
	case len(c.args) == 2:
	case len(c.args) == 4 && c.is(2, "type"):
		normal, ok := clientType(c.arg(3))
		if !ok {
			c.w.Error("ERR Unknown client type '" + c.arg(3) + "'")
			return
		}
		if !normal {
			list = nil
		}
	case len(c.args) > 3 && c.is(2, "id"):
		ids := map[int64]bool{}
		for _, a := range c.args[3:] {
			id, ok := resp.ParseInt(a)
			if !ok {
				c.w.Error("ERR Invalid client ID")
				return
			}
			ids[id] = true
		}
		list = slices.DeleteFunc(list, func(o *conn) bool { return !ids[o.id] })
	default:
		c.w.Error(errSyntax)
		return
	}
	var text strings.Builder
	now := time.Now()
	for _, o := range list {
		text.WriteString(o.describe(now))
		text.WriteByte('\n')
	}
	c.w.Verbatim("txt", text.String())
}

// killFilter says which clients CLIENT KILL means.
type killFilter struct {
	id          int64
	addr, laddr string
	none        bool // a type or user that no client here has
	skipMe      bool
}

func (f *killFilter) matches(c, me *conn) bool {
	return !f.none && (f.id == 0 || f.id == c.id) && (f.addr == "" || f.addr == c.nc.RemoteAddr().String()) &&
		(f.laddr == "" || f.laddr == c.nc.LocalAddr().String()) && !(f.skipMe && c == me)
}

func clientKill(c *call) {
	f := killFilter{skipMe: true}
	old := len(c.args) == 3
	if old {
		f.addr, f.skipMe = c.arg(2), false
	} else if text := f.parse(c); text != "" {
		c.w.Error(text)
		return
	}
	killed := 0
	c.s.clients.each(func(o *conn) {
		if !f.matches(o, c.conn) {
			return
		}
		killed++
		if o == c.conn {
			c.ending = true // the reply still goes out
			return
		}
		o.close()
	})
	switch {
	case !old:
		c.w.Int(int64(killed))
	case killed == 0:
		c.w.Error("ERR No such client")
	default:
		c.w.OK()
	}
}

func (f *killFilter) parse(c *call) (text string) {
	for i := 2; i < len(c.args); i += 2 {
		if i+1 == len(c.args) {
			return errSyntax
		}
		value := c.arg(i + 1)
		switch {
		case c.is(i, "id"):
			id, err := strconv.ParseInt(value, 10, 64)
			if err != nil || id < 1 {
				return "ERR client-id should be greater than 0"
			}
			f.id = id
		case c.is(i, "type"):
			normal, ok := clientType(value)
			if !ok {
				return "ERR Unknown client type '" + value + "'"
			}
			f.none = f.none || !normal
		case c.is(i, "addr"):
			f.addr = value
		case c.is(i, "laddr"):
			f.laddr = value
		case c.is(i, "user"):
			if value != "default" {
				return "ERR No such user '" + value + "'"
			}
		case c.is(i, "skipme") && (c.is(i+1, "yes") || c.is(i+1, "no")):
			f.skipMe = c.is(i+1, "yes")
		default:
			return errSyntax
		}
	}
	return ""
}

var clientHelp = []string{
	"CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"GETNAME",
	"    Return the name of the current connection.",
	"GETREDIR",
	"    Return the client ID we are redirecting to when tracking is enabled.",
	"ID",
	"    Return the ID of the current connection.",
	"INFO",
	"    Return information about the current client connection.",
	"KILL <ip:port>",
	"    Kill connection made from <ip:port>.",
	"KILL <option> <value> [<option> <value> [...]]",
	"    Kill connections. Options are:",
	"    * ADDR (<ip:port>|<unixsocket>:0)",
	"      Kill connections made from the specified address",
	"    * ID <client-id>",
	"      Kill the connection with that ID.",
	"    * LADDR (<ip:port>|<unixsocket>:0)",
	"      Kill connections made to specified local address",
	"    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
	"      Kill connections by type.",
	"    * USER <username>",
	"      Kill connections authenticated by <username>.",
	"    * SKIPME (YES|NO)",
	"      Skip killing current connection (default: yes).",
	"LIST [options ...]",
	"    Return information about client connections. Options:",
	"    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
	"      Return clients of specified type.",
	"    * ID <client-id> [<client-id> ...]",
	"      Return clients of specified IDs only.",
	"NO-EVICT (ON|OFF)",
	"    Protect current client connection from eviction.",
	"NO-TOUCH (ON|OFF)",
	"    Commands sent by the current client connection do not alter the LRU of keys.",
	"REPLY (ON|OFF|SKIP)",
	"    Control the replies sent to the current connection.",
	"SETINFO (LIB-NAME|LIB-VER) <value>",
	"    Set the client's library name or version.",
	"SETNAME <name>",
	"    Assign the name <name> to the current connection.",
	"UNPAUSE",
	"    Stop the current client pause, resuming traffic.",
	"HELP",
	"    Prints this help.",
}

func replyLines(w *resp.Writer, lines []string) {
	w.Array(len(lines))
	for _, l := range lines {
		w.Simple(l)
	}
}

package server

import (
	"strconv"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/internal/resp"
)

// redisVersion is the version of Redis whose replies these are; clients choose what they use by it.
const redisVersion = "7.0.15"

// Texts of Redis 7.
const (
	errNotInteger = "ERR value is not an integer or out of range"
	errSyntax     = "ERR syntax error"
	errWrongPass  = "WRONGPASS invalid username-password pair or user is disabled."
	errNoPassword = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"
	errClientName = "ERR Client names cannot contain spaces, newlines or special characters."
)

func ping(c *call) {
	switch len(c.args) {
	case 1:
		c.w.Simple("PONG")
	case 2:
		c.w.Bulk(c.args[1])
	default:
		c.w.Error("ERR wrong number of arguments for 'ping' command")
	}
}

func echo(c *call) { c.w.Bulk(c.args[1]) }

func quit(c *call) {
	c.w.OK()
	c.ending = true
}

func reset(c *call) {
	c.session.Reset()
	c.setProto(2)
	c.w.Proto = 2
	c.names.Store(&names{lib: c.names.Load().lib, version: c.names.Load().version})
	c.noEvict.Store(false)
	c.noTouch.Store(false)
	c.w.Simple("RESET")
}

func (c *conn) setProto(v int) {
	c.session.Proto = v
	c.proto.Store(int32(v))
}

func selectDB(c *call) {
	n, ok := resp.ParseInt(c.args[1])
	switch {
	case !ok:
		c.w.Error(errNotInteger)
	case n != int64(int32(n)):
		c.w.Error("ERR value is out of range, value must between -2147483648 and 2147483647")
	case n != 0:
		c.w.Error("ERR DB index is out of range")
	default:
		c.w.OK()
	}
}

func timeNow(c *call) {
	micros := time.Now().UnixMicro()
	c.w.Array(2)
	c.w.BulkString(strconv.FormatInt(micros/1e6, 10))
	c.w.BulkString(strconv.FormatInt(micros%1e6, 10))
}

// auth refuses a password, since none is configured, and takes the default user, who has none.
func auth(c *call) {
	switch {
	case len(c.args) > 3:
		c.w.Error(errSyntax)
	case len(c.args) == 2:
		c.w.Error(errNoPassword)
	case c.arg(1) != "default":
		c.w.Error(errWrongPass)
	default:
		c.w.OK()
	}
}

// hello is HELLO [protover [AUTH username password] [SETNAME clientname]].
func hello(c *call) {
	proto, name := c.session.Proto, c.names.Load().name
	if len(c.args) > 1 {
		v, ok := resp.ParseInt(c.args[1])
		if !ok {
			c.w.Error("ERR Protocol version is not an integer or out of range")
			return
		}
		if v < 2 || v > 3 {
			c.w.Error("NOPROTO unsupported protocol version")
			return
		}
		proto = int(v)
	}
	for i := 2; i < len(c.args); {
		switch left := len(c.args) - i - 1; {
		case c.is(i, "auth") && left >= 2:
			if c.arg(i+1) != "default" {
				c.w.Error(errWrongPass)
				return
			}
			i += 3
		case c.is(i, "setname") && left >= 1:
			if name = c.arg(i + 1); !validClientName(name) {
				c.w.Error(errClientName)
				return
			}
			i += 2
		default:
			c.w.Error("ERR Syntax error in HELLO option '" + c.arg(i) + "'")
			return
		}
	}
	c.rename(func(n *names) { n.name = name })
	c.setProto(proto)
	w := c.w
	w.Proto = proto
	w.Map(7)
	w.BulkString("server")
	w.BulkString("redis")
	w.BulkString("version")
	w.BulkString(redisVersion)
	w.BulkString("proto")
	w.Int(int64(proto))
	w.BulkString("id")
	w.Int(c.id)
	w.BulkString("mode")
	w.BulkString("standalone")
	w.BulkString("role")
	w.BulkString(c.s.helloRole())
	w.BulkString("modules")
	w.Array(0)
}

// helloRole is the role as HELLO tells it.
func (s *Server) helloRole() string {
	if s.backend.Role() == RoleReplica {
		return "replica"
	}
	return "master"
}

// validClientName is Redis's rule for names that must not break the lines of CLIENT LIST.
func validClientName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '!' || r > '~' })
}

// rename changes what the client calls itself.
func (c *conn) rename(change func(*names)) {
	n := *c.names.Load()
	change(&n)
	c.names.Store(&n)
}

// shutdown is SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]. Everything is saved in any case: the log has it.
func shutdown(c *call) {
	abort := false
	var save, noSave bool
	for i := 1; i < len(c.args); i++ {
		switch {
		case c.is(i, "nosave"):
			noSave = true
		case c.is(i, "save"):
			save = true
		case c.is(i, "now"), c.is(i, "force"):
		case c.is(i, "abort"):
			abort = true
		default:
			c.w.Error(errSyntax)
			return
		}
	}
	switch {
	case save && noSave, abort && len(c.args) > 2:
		c.w.Error(errSyntax)
	case abort:
		c.w.Error("ERR No shutdown in progress.")
	case c.s.o.Shutdown == nil:
		c.w.Error("ERR SHUTDOWN is not possible here: this server belongs to an embedding program, which has to end it")
	default:
		c.ending = true
		c.s.o.Shutdown("SHUTDOWN from " + c.nc.RemoteAddr().String())
	}
}

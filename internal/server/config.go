package server

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-kv/understudy/internal/glob"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
)

// config is what CONFIG GET and CONFIG SET know: the connections' parameters, the process's and the node's.
type config struct {
	s  *Server
	mu sync.Mutex // one CONFIG SET at a time
}

func (c *config) init(s *Server) { c.s = s }

// params lists the parameters by name. A parameter of the process or of the node hides one of the connections'.
func (c *config) params() []Param {
	s := c.s
	list := append(append(append([]Param{}, s.o.Params...), s.backend.Params()...), s.ownParams()...)
	slices.SortStableFunc(list, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(list, func(a, b Param) bool { return a.Name == b.Name })
}

// fixed is a parameter that tells how things are, for clients that ask before they begin.
func fixed(name, value string) Param { return Param{Name: name, Get: func() string { return value }} }

func (s *Server) ownParams() []Param {
	fsync := func(name string) Param {
		return Param{Name: name, Get: func() string { return string(s.backend.Fsync()) }, Set: s.setFsync}
	}
	return append(s.gateParams(), []Param{
		{Name: "maxclients", Get: func() string { return strconv.FormatInt(s.maxClients.Load(), 10) }, Set: func(v string) error {
			n, err := intParam(v, 1, 1<<31-1)
			if err == nil {
				s.maxClients.Store(n)
			}
			return err
		}},
		{Name: "timeout", Get: func() string { return strconv.FormatInt(int64(s.timeout.Load()/int64(time.Second)), 10) }, Set: func(v string) error {
			n, err := intParam(v, 0, 1<<31-1)
			if err == nil {
				s.setTimeout(time.Duration(n) * time.Second)
			}
			return err
		}},
		fsync("appendfsync"),
		fsync("fsync"),
		fixed("appendonly", "yes"),
		fixed("cluster-enabled", "no"),
		fixed("databases", "1"),
		fixed("maxmemory", "0"),
		fixed("maxmemory-policy", "noeviction"),
		fixed("proto-max-bulk-len", strconv.Itoa(resp.MaxBulk)),
		fixed("replica-read-only", "yes"),
		fixed("requirepass", ""),
		fixed("save", ""),
		fixed("slave-read-only", "yes"),
		fixed("tcp-keepalive", strconv.Itoa(int(keepAlive.Seconds()))),
	}...)
}

// intParam reads an integer parameter; the errors are Redis's.
func intParam(v string, from, to int64) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("argument couldn't be parsed into an integer")
	}
	if n < from || n > to {
		return 0, fmt.Errorf("argument must be between %d and %d inclusive", from, to)
	}
	return n, nil
}

func (s *Server) setTimeout(d time.Duration) {
	s.timeout.Store(int64(d))
	s.clients.each(func(c *conn) {
		deadline := time.Time{}
		if d > 0 {
			deadline = time.Unix(0, c.active.Load()).Add(d)
		}
		select {
		case <-s.quit: // the deadline that ends the connection must stay
		default:
			_ = c.nc.SetReadDeadline(deadline)
		}
	})
}

func (s *Server) setFsync(v string) error {
	p, err := shard.ParseFsync(strings.ToLower(v))
	if err != nil {
		return fmt.Errorf("argument(s) must be one of the following: everysec, always, no")
	}
	return s.backend.SetFsync(p)
}

// configVerb is CONFIG.
func configVerb(c *call) {
	switch c.sub() {
	case "get":
		configGet(c)
	case "set":
		configSet(c)
	case "resetstat":
		c.s.resetStats()
		c.w.OK()
	case "rewrite":
		c.w.Error("ERR The server is running without a config file")
	default:
		replyLines(c.w, configHelp)
	}
}

func configGet(c *call) {
	var found []Param
	for _, p := range c.s.config.params() {
		if slices.ContainsFunc(c.args[2:], func(pattern []byte) bool { return glob.Match(pattern, []byte(p.Name), true) }) {
			found = append(found, p)
		}
	}
	c.w.Map(len(found))
	for _, p := range found {
		c.w.BulkString(p.Name)
		c.w.BulkString(p.Get())
	}
}

// configSet sets all the pairs or, where one is refused, none.
func configSet(c *call) {
	if len(c.args)%2 != 0 {
		c.w.Error("ERR wrong number of arguments for 'config|set' command")
		return
	}
	c.s.config.mu.Lock()
	defer c.s.config.mu.Unlock()
	params := c.s.config.params()
	var set []Param
	fail := func(name, why string) {
		c.w.Error("ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + why)
	}
	for i := 2; i < len(c.args); i += 2 {
		at := slices.IndexFunc(params, func(p Param) bool { return c.is(i, p.Name) })
		switch {
		case at < 0:
			c.w.Error("ERR Unknown option or number of arguments for CONFIG SET - '" + c.arg(i) + "'")
			return
		case params[at].Set == nil:
			fail(params[at].Name, "can't set immutable config")
			return
		case slices.ContainsFunc(set, func(p Param) bool { return p.Name == params[at].Name }):
			fail(params[at].Name, "duplicate parameter")
			return
		}
		set = append(set, params[at])
	}
	before := make([]string, len(set))
	for i, p := range set {
		before[i] = p.Get()
		if err := p.Set(c.arg(3 + 2*i)); err != nil {
			why := err.Error()
			for j := range i {
				if err := set[j].Set(before[j]); err != nil {
					why += "; and setting " + set[j].Name + " back to " + before[j] + " failed: " + err.Error()
				}
			}
			fail(p.Name, why)
			return
		}
	}
	c.w.OK()
}

var configHelp = []string{
	"CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"GET <pattern>",
	"    Return parameters matching the glob-like <pattern> and their values.",
	"SET <directive> <value>",
	"    Set the configuration <directive> to <value>.",
	"RESETSTAT",
	"    Reset statistics reported by the INFO command.",
	"REWRITE",
	"    Rewrite the configuration file.",
	"HELP",
	"    Prints this help.",
}

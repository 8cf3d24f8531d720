package server

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/status"
)

// failover is FAILOVER [TO host port [FORCE]] [ABORT] [TIMEOUT ms], with Redis's checks and texts. host and port are what
// the replica announces for clients, as INFO shows it, or its replication port base.
func failover(c *call) {
	var address string
	var limit int64
	abort, force, timed := false, false, false
	for i := 1; i < len(c.args); {
		switch {
		case c.is(i, "to") && i+2 < len(c.args) && address == "":
			port, ok := resp.ParseInt(c.args[i+2])
			if !ok {
				c.w.Error(errNotInteger)
				return
			}
			address = net.JoinHostPort(c.arg(i+1), strconv.FormatInt(port, 10))
			i += 3
		case c.is(i, "force") && !force:
			force = true
			i++
		case c.is(i, "timeout") && i+1 < len(c.args) && !timed:
			n, ok := resp.ParseInt(c.args[i+1])
			if !ok {
				c.w.Error(errNotInteger)
				return
			}
			if n <= 0 {
				c.w.Error("ERR FAILOVER timeout must be greater than 0")
				return
			}
			limit, timed = n, true
			i += 2
		case c.is(i, "abort") && len(c.args) == 2:
			abort = true
			i++
		default:
			c.w.Error("ERR syntax error")
			return
		}
	}
	if abort {
		c.answer(c.s.backend.AbortFailover())
		return
	}
	if force && (!timed || address == "") {
		c.w.Error("ERR " + c.s.forceFault())
		return
	}
	limit = min(limit, int64(1<<62)/int64(time.Millisecond))
	c.answer(c.s.backend.Failover(context.Background(), address, time.Duration(limit)*time.Millisecond, force))
}

// forceFault is why a FAILOVER with FORCE alone does not begin: what Redis checks before that comes first.
func (s *Server) forceFault() string {
	n := s.backend.Status()
	switch {
	case n.Failover != nil && n.Failover.State != status.FailoverNone:
		return "FAILOVER already in progress."
	case n.Role == RoleReplica:
		return "FAILOVER is not valid when server is a replica."
	case len(followers(&n)) == 0:
		return "FAILOVER requires connected replicas."
	}
	return "FAILOVER with force option requires both a timeout and target HOST and IP."
}

// answer is OK or the error.
func (c *call) answer(err error) {
	if err != nil {
		c.w.Error("ERR " + oneLine(err))
		return
	}
	c.w.OK()
}

package server

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/status"
)

// follower is one replica as Redis's tools know it: its slots on all shards together. Offsets are sums over the shards,
// which say nothing about any one of them; they are there for such tools only.
type follower struct {
	id      string
	address string
	state   string // "online", "send_bulk" (a shard is in a full sync) or "wait_bgsave" (a shard has no session)
	applied uint64
	lag     float64 // seconds since the oldest of its last acks
}

// followers lists the replicas that have a session on some shard, by id.
func followers(n *status.Node) []follower {
	byID := map[string]*follower{}
	online := map[string]int{}
	for _, sh := range n.Shards {
		for _, slot := range sh.Slots {
			if slot.State == "detached" {
				continue
			}
			f := byID[slot.Replica]
			if f == nil {
				f = &follower{id: slot.Replica, address: slot.Address, state: "wait_bgsave"}
				byID[slot.Replica] = f
			}
			f.applied += slot.Applied
			f.lag = max(f.lag, slot.LastAckAge)
			if slot.State == "online" {
				online[slot.Replica]++
			} else {
				f.state = "send_bulk"
			}
		}
	}
	list := make([]follower, 0, len(byID))
	for id, f := range byID {
		if online[id] == len(n.Shards) {
			f.state = "online"
		}
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b follower) int { return strings.Compare(a.id, b.id) })
	return list
}

// hostPort takes an address apart as far as it can be.
func hostPort(address string) (host string, port int) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return address, 0
	}
	port, _ = strconv.Atoi(text)
	return host, port
}

// offsets sums the shards' positions.
func offsets(n *status.Node) (sum uint64) {
	for _, sh := range n.Shards {
		sum += sh.Offset
	}
	return sum
}

// replSlots is REPL.SLOTS: a map for each slot of each shard.
func replSlots(c *call) {
	n := c.s.backend.Status()
	total := 0
	for _, sh := range n.Shards {
		total += len(sh.Slots)
	}
	w := c.w
	w.Array(total)
	integer := func(name string, v int64) { w.BulkString(name); w.Int(v) }
	text := func(name, v string) { w.BulkString(name); w.BulkString(v) }
	seconds := func(name string, v float64) { w.BulkString(name); w.Double(v) }
	for _, sh := range n.Shards {
		for _, s := range sh.Slots {
			w.Map(15)
			text("replica", s.Replica)
			integer("shard", int64(sh.Shard))
			text("address", s.Address)
			text("state", s.State)
			integer("received", int64(s.Received))
			integer("applied", int64(s.Applied))
			integer("durable", int64(s.Durable))
			integer("lag_mutations", int64(s.LagMutations))
			integer("lag_bytes", s.LagBytes)
			seconds("last_ack_age_seconds", s.LastAckAge)
			seconds("detached_seconds", s.DetachedFor)
			seconds("reaped_in_seconds", s.ReapedIn)
			integer("retained_bytes", s.RetainedBytes)
			integer("bytes_left", s.BytesLeft)
			seconds("seconds_left", s.SecondsLeft)
		}
	}
}

// replSlot is REPL.SLOT DROP id. It replies on how many shards there was a slot to drop.
func replSlot(c *call) {
	if len(c.args) != 3 || !c.is(1, "drop") {
		c.w.Error("ERR syntax error: REPL.SLOT DROP replica-id")
		return
	}
	n, err := c.s.backend.DropSlot(c.arg(2))
	if err != nil {
		c.w.Error("ERR " + err.Error())
		return
	}
	c.w.Int(int64(n))
}

// replStatus is REPL.STATUS [JSON]: status.Node as JSON.
func replStatus(c *call) {
	if len(c.args) > 2 || len(c.args) == 2 && !c.is(1, "json") {
		c.w.Error("ERR syntax error: REPL.STATUS [JSON]")
		return
	}
	n := c.s.backend.Status()
	b, err := json.Marshal(&n)
	if err != nil {
		c.w.Error("ERR " + err.Error())
		return
	}
	c.w.Bulk(b)
}

// role is ROLE, in Redis's format.
func role(c *call) {
	n := c.s.backend.Status()
	if n.Role == RoleReplica {
		host, port := c.s.backend.Following()
		c.w.Array(5)
		c.w.BulkString("slave")
		c.w.BulkString(host)
		c.w.Int(int64(port))
		c.w.BulkString(linkState(&n))
		c.w.Int(int64(offsets(&n)))
		return
	}
	list := followers(&n)
	c.w.Array(3)
	c.w.BulkString("master")
	c.w.Int(int64(offsets(&n)))
	c.w.Array(len(list))
	for _, f := range list {
		host, port := hostPort(f.address)
		c.w.Array(3)
		c.w.BulkString(host)
		c.w.BulkString(strconv.Itoa(port))
		c.w.BulkString(strconv.FormatUint(f.applied, 10))
	}
}

// linkState is the state of the worst of a replica's links, in ROLE's words.
func linkState(n *status.Node) string {
	rank := map[string]int{"connect": 0, "connecting": 1, "sync": 2, "connected": 3}
	worst := "connected"
	if len(n.Shards) == 0 {
		worst = "connect"
	}
	for _, sh := range n.Shards {
		state := "connect"
		if sh.Link != nil {
			switch sh.Link.State {
			case "streaming":
				state = "connected"
			case "syncing":
				state = "sync"
			case "connecting", "handshake":
				state = "connecting"
			}
		}
		if rank[state] < rank[worst] {
			worst = state
		}
	}
	return worst
}

// roleLimit is how long a change of role may ask other nodes. What it does here is done when it replies.
const roleLimit = 10 * time.Second

// replPromote is REPL.PROMOTE [FORCE]: REPLICAOF NO ONE, with FORCE even if one shard's data is older than another's.
func replPromote(c *call) {
	if len(c.args) > 2 || len(c.args) == 2 && !c.is(1, "force") {
		c.w.Error("ERR syntax error: REPL.PROMOTE [FORCE]")
		return
	}
	c.promote(len(c.args) == 2)
}

func (c *call) promote(force bool) {
	if c.inTransaction() {
		return
	}
	ctx, cancel := c.s.roleContext()
	defer cancel()
	c.answer(c.s.backend.Promote(ctx, force))
}

// roleContext limits a change of role, which goes on when the client leaves, but not when the server stops.
func (s *Server) roleContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), roleLimit)
	stop := context.AfterFunc(s.stopping, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// inTransaction refuses a change of role within EXEC, which holds the shards whose role it is.
func (c *call) inTransaction() bool {
	if c.session.InExec() {
		c.w.Error("ERR the role cannot be changed within a transaction: send " + strings.ToUpper(c.cmd.Name) + " outside of MULTI")
		return true
	}
	return false
}

// replicaOf is REPLICAOF host port, where port is the other node's replication port base, and REPLICAOF NO ONE.
func replicaOf(c *call) {
	if c.is(1, "no") && c.is(2, "one") {
		c.promote(false)
		return
	}
	port, ok := resp.ParseInt(c.args[2])
	if !ok || port < 1 || port > 65535 {
		c.w.Error("ERR Invalid master port")
		return
	}
	if c.inTransaction() {
		return
	}
	ctx, cancel := c.s.roleContext()
	defer cancel()
	already, err := c.s.backend.Follow(ctx, c.arg(1), int(port))
	switch {
	case err != nil:
		c.w.Error("ERR " + oneLine(err))
	case already:
		c.w.Simple("OK Already connected to specified master")
	default:
		c.w.OK()
	}
}

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/internal/units"
	"github.com/understudy-kv/understudy/primary"
	"github.com/understudy-kv/understudy/replica"
	"github.com/understudy-kv/understudy/slottable"
)

// startPrimary opens a node that is a primary, unless its directory says otherwise, and its clients' port.
func startPrimary(_ context.Context, o PrimaryOptions, log hclog.Logger, quit func(string)) (runnable, error) {
	no := node.Options{Role: store.Primary}
	if o.Shards != nil {
		no.Shards = *o.Shards
	}
	return startNode(no, &o.NodeOptions, log, quit)
}

// startReplica opens a node that is a replica, unless its directory says otherwise, and its clients' port. It is ready
// when clients can connect; what they can read yet is told by -LOADING and by INFO.
func startReplica(_ context.Context, o ReplicaOptions, log hclog.Logger, quit func(string)) (runnable, error) {
	no := node.Options{Role: store.Replica, Primary: o.Primary}
	if o.Primary == "" {
		no.Role = "" // the directory has one, or Validate would have said so
	}
	return startNode(no, &o.NodeOptions, log, quit)
}

func startNode(no node.Options, o *NodeOptions, log hclog.Logger, quit func(string)) (runnable, error) {
	if err := probe(o.Listen); err != nil {
		return nil, err
	}
	no.Dir, no.Cluster, no.Fsync, no.Memory, no.BackgroundCPU = o.DataDir, o.ClusterName, o.Fsync, int64(o.Memory), o.BackgroundCPU
	no.ReplicationListen, no.ReplicationPortBase = o.replicationHost(), o.portBase()
	no.AnnounceHost, no.AnnouncePortBase, no.Announce = o.AnnounceHost, o.AnnouncePortBase, o.announce()
	// In the library's options 0 means the default; here it was asked for.
	no.BacklogMemory, no.BacklogKeep, no.BacklogDisk = int64(o.BacklogMemory), max(int64(o.BacklogKeep), 1), max(int64(o.BacklogDisk), 1)
	no.RefuseStale, no.DropPrevious, no.Logger = !o.ServeStale, !o.KeepPrevious, log
	if o.ReplicaID != "" {
		id, err := store.ParseID(o.ReplicaID)
		if err != nil {
			return nil, err
		}
		no.ReplicaID = id
	}
	// The same goroutines wait for clients and for replication.
	rs := newReactors(log)
	adopt := func(conn net.Conn) net.Conn { return netpoll.Adopt(rs.poller(), conn) }
	no.Serve = primary.Serve(primary.ServerOptions{ReconnectWindow: max(o.ReconnectWindow, 1), MaxReplicas: o.MaxReplicas, Adopt: adopt})
	no.Follow = replica.Follow(replica.FollowerOptions{
		InboxBytes: int64(o.InboxBytes), SyncRate: int64(o.SyncRate), AcceptEmptyPrimary: o.AcceptEmptyPrimary,
		SurplusLimit: o.surplusLimit(), Adopt: adopt,
	})
	warnExposed(log, "replicas", o.replicationHost())
	// Recovery is to keep to the limit too; the shard count is known for certain behind it.
	tuneMemory(log, o.Memory, o.BacklogMemory*units.Bytes(max(no.Shards, runtime.GOMAXPROCS(0))))
	n, err := node.Open(no)
	if err != nil {
		rs.close()
		return nil, err
	}
	t := startTuner(log, n, o)
	closeNode := func() error {
		t.stop()
		err := n.Close()
		rs.close()
		return err
	}
	s, err := serve(o, log, n.Keyspace(), func(listen string) Backend { return &backend{n, listen, o} }, quit, rs, closeNode)
	if err != nil {
		return nil, err
	}
	st := s.server.backend.Status()
	s.line = fmt.Sprintf("ready role=%s listen=%s", st.Role, st.Listen)
	if st.Replication != "" {
		s.line += " replication=" + st.Replication
	}
	if st.Primary != "" {
		s.line += " primary=" + st.Primary
	}
	s.line += fmt.Sprintf(" shards=%d", len(n.Shards()))
	return s, nil
}

// surplusLimit is --surplus-limit in the library's words, where 0 means the default.
func (o *NodeOptions) surplusLimit() int64 {
	if o.SurplusLimit == 0 {
		return -1
	}
	return int64(o.SurplusLimit)
}

// announce is where clients reach the node, as others are told; "" while the port is not known.
func (o *NodeOptions) announce() string {
	host, port, err := splitAddress(o.Listen)
	if err != nil || port == 0 {
		return ""
	}
	if o.AnnounceHost != "" {
		host = o.AnnounceHost
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// backend is a node as its connections see it.
type backend struct {
	*node.Node
	listen string
	o      *NodeOptions
}

func (b *backend) Role() string { return string(b.Node.Role()) }

func (b *backend) Status() status.Node {
	n := b.Node.Status()
	n.Listen = b.listen
	return n
}

func (b *backend) Following() (host string, port int) {
	if address := b.Primary(); address != "" {
		host, port, _ = splitAddress(address) // it was tested when it was set
	}
	return host, port
}

func (b *backend) Follow(ctx context.Context, host string, port int) (already bool, err error) {
	return b.Node.Follow(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
}

func (b *backend) Failover(ctx context.Context, address string, limit time.Duration, force bool) error {
	return b.Node.Failover(ctx, node.FailoverRequest{Target: address, Timeout: limit, Force: force})
}

func (b *backend) Wait(ctx context.Context, written []uint64, replicas int, level AckLevel) int {
	at := slottable.Applied
	if level == AckDurable {
		at = slottable.Durable
	}
	return b.WaitAcked(ctx, written, replicas, at)
}

func (b *backend) FreshReplicas(maxLag time.Duration) int {
	s := b.Server()
	if s == nil {
		return 0 // nobody is served
	}
	return s.FreshReplicas(maxLag)
}

func (b *backend) LagMillis() float64 {
	if f := b.Follower(); f != nil {
		return f.LagMillis()
	}
	return 0
}

func (b *backend) DropSlot(replica string) (int, error) {
	id, err := store.ParseID(replica)
	if err != nil {
		return 0, err
	}
	s := b.Server()
	if s == nil {
		return 0, errors.New("this node serves no replicas yet, so it has no slots")
	}
	n, err := s.DropSlot(id)
	var attached *slottable.AttachedError
	switch {
	case errors.Is(err, slottable.ErrNoSlot):
		err = fmt.Errorf("no slot of replica %s: REPL.SLOTS lists them", replica)
	case errors.As(err, &attached):
		err = fmt.Errorf("replica %s is attached to shard %d from %s: stop it first, then drop its slot", replica, attached.Shard, attached.Address)
	}
	return n, err
}

func (b *backend) Params() []Param {
	host, base, _ := net.SplitHostPort(b.ReplicationAddr())
	yesNo := func(v bool) string {
		if v {
			return "yes"
		}
		return "no"
	}
	size := func(n units.Bytes) string { return strconv.FormatInt(int64(n), 10) }
	return []Param{
		{Name: "shards", Get: func() string { return strconv.Itoa(len(b.Shards())) }},
		{Name: "primary", Get: b.Primary},
		fixed("replication-listen", host),
		fixed("replication-port-base", base),
		fixed("announce-host", b.o.AnnounceHost),
		fixed("announce-port-base", strconv.Itoa(b.o.AnnouncePortBase)),
		fixed("max-replicas", strconv.Itoa(b.o.MaxReplicas)),
		fixed("replica-id", b.ReplicaID().String()),
		fixed("inbox-bytes", size(b.o.InboxBytes)),
		fixed("sync-rate", size(b.o.SyncRate)),
		fixed("surplus-limit", size(b.o.SurplusLimit)),
		fixed("serve-stale", yesNo(b.o.ServeStale)),
		fixed("replica-serve-stale-data", yesNo(b.o.ServeStale)),
		fixed("accept-empty-primary", yesNo(b.o.AcceptEmptyPrimary)),
		fixed("keep-previous", yesNo(b.o.KeepPrevious)),
		b.backlogParam("backlog-keep", func(keep, _ *int64) *int64 { return keep }),
		b.backlogParam("backlog-disk", func(_, disk *int64) *int64 { return disk }),
		{Name: "reconnect-window", Get: func() string {
			if d, known := b.ReconnectWindow(); known {
				return d.String()
			}
			return b.o.ReconnectWindow.String()
		}, Set: func(v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 {
				return errors.New("argument must be a duration, such as 60s")
			}
			b.SetReconnectWindow(d)
			return nil
		}},
	}
}

// backlogParam is one of the two limits of the backlog on disk, which are set together.
func (b *backend) backlogParam(name string, of func(keep, disk *int64) *int64) Param {
	return Param{
		Name: name,
		Get: func() string {
			keep, disk := b.BacklogLimits()
			return strconv.FormatInt(*of(&keep, &disk), 10)
		},
		Set: func(v string) error {
			n, err := units.ParseBytes(v)
			if err != nil {
				return err
			}
			keep, disk := b.BacklogLimits()
			*of(&keep, &disk) = int64(n)
			return b.SetBacklogLimits(keep, disk)
		},
	}
}

// oneLine is an error's text for a reply.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// tuner keeps the memory limit in step with the shard count, which a replica learns from its primary, and with the role.
type tuner struct {
	quit, done chan struct{}
}

func startTuner(log hclog.Logger, n *node.Node, o *NodeOptions) *tuner {
	t := &tuner{quit: make(chan struct{}), done: make(chan struct{})}
	// startTuner starts one goroutine. It owns nothing and ends with quit; stop waits for it.
	go func() {
		defer close(t.done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for before := units.Bytes(-1); ; {
			each := o.BacklogMemory
			if n.Role() == store.Replica {
				each += o.InboxBytes
			}
			if now := each * units.Bytes(max(len(n.Shards()), 1)); now != before {
				before = now
				tuneMemory(log, o.Memory, now)
			}
			select {
			case <-tick.C:
			case <-t.quit:
				return
			}
		}
	}()
	return t
}

func (t *tuner) stop() {
	close(t.quit)
	<-t.done
}

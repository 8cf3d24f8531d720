package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/internal/units"
	"github.com/understudy-kv/understudy/primary"
	"github.com/understudy-kv/understudy/slottable"
)

// startPrimary opens a primary and its clients' port.
func startPrimary(_ context.Context, o PrimaryOptions, log hclog.Logger, quit func(string)) (node, error) {
	if err := probe(o.Listen); err != nil {
		return nil, err
	}
	po := primary.Options{
		Dir: o.DataDir, Cluster: o.ClusterName, Fsync: o.Fsync, Memory: int64(o.Memory), ReplicationListen: o.replicationHost(), ReplicationPortBase: o.portBase(),
		// In the library's options 0 means the default; here it was asked for.
		BacklogMemory: int64(o.BacklogMemory), BacklogKeep: max(int64(o.BacklogKeep), 1), BacklogDisk: max(int64(o.BacklogDisk), 1),
		ReconnectWindow: max(o.ReconnectWindow, 1), MaxReplicas: o.MaxReplicas, Logger: log,
	}
	if o.Shards != nil {
		po.Shards = *o.Shards
	}
	warnExposed(log, "replicas", o.replicationHost())
	// Recovery is to keep to the limit too; the shard count is known for certain behind it.
	tuneMemory(log, o.Memory, o.BacklogMemory*units.Bytes(max(po.Shards, runtime.GOMAXPROCS(0))))
	n, err := primary.Open(po)
	if err != nil {
		return nil, err
	}
	shards := len(n.Shards())
	tuneMemory(log, o.Memory, o.BacklogMemory*units.Bytes(shards))
	s, err := serve(&o.NodeOptions, log, n.Keyspace(), func(listen string) Backend { return &primaryBackend{n, listen, o.MaxReplicas} }, quit, n.Close)
	if err != nil {
		return nil, err
	}
	st := s.server.backend.Status()
	s.line = fmt.Sprintf("ready role=primary listen=%s replication=%s shards=%d", st.Listen, st.Replication, shards)
	return s, nil
}

// primaryBackend is a primary as its connections see it.
type primaryBackend struct {
	*primary.Node
	listen      string
	maxReplicas int
}

func (b *primaryBackend) Role() string { return RolePrimary }

func (b *primaryBackend) Status() status.Node {
	n := b.Node.Status()
	n.Listen = b.listen
	return n
}

func (b *primaryBackend) Following() (host string, port int) { return "", 0 }

func (b *primaryBackend) Wait(ctx context.Context, written []uint64, replicas int, level AckLevel) int {
	at := slottable.Applied
	if level == AckDurable {
		at = slottable.Durable
	}
	return b.WaitAcked(ctx, written, replicas, at)
}

func (b *primaryBackend) DropSlot(replica string) (int, error) {
	id, err := store.ParseID(replica)
	if err != nil {
		return 0, err
	}
	n, err := b.Server().DropSlot(id)
	var attached *slottable.AttachedError
	switch {
	case errors.Is(err, slottable.ErrNoSlot):
		err = fmt.Errorf("no slot of replica %s: REPL.SLOTS lists them", replica)
	case errors.As(err, &attached):
		err = fmt.Errorf("replica %s is attached to shard %d from %s: stop it first, then drop its slot", replica, attached.Shard, attached.Address)
	}
	return n, err
}

func (b *primaryBackend) Params() []Param {
	host, base, _ := net.SplitHostPort(b.ReplicationAddr())
	return []Param{
		fixed("shards", strconv.Itoa(len(b.Shards()))),
		fixed("replication-listen", host),
		fixed("replication-port-base", base),
		fixed("max-replicas", strconv.Itoa(b.maxReplicas)),
		b.backlogParam("backlog-keep", func(keep, _ *int64) *int64 { return keep }),
		b.backlogParam("backlog-disk", func(_, disk *int64) *int64 { return disk }),
		{Name: "reconnect-window", Get: func() string { return b.Server().ReconnectWindow().String() }, Set: func(v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 {
				return errors.New("argument must be a duration, such as 60s")
			}
			b.Server().SetReconnectWindow(d)
			return nil
		}},
	}
}

// backlogParam is one of the two limits of the backlog on disk, which are set together.
func (b *primaryBackend) backlogParam(name string, of func(keep, disk *int64) *int64) Param {
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

package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/internal/units"
	"github.com/understudy-kv/understudy/replica"
)

// startReplica opens a replica and its clients' port. It is ready when clients can connect; what they can read yet is
// told by -LOADING and by INFO.
func startReplica(_ context.Context, o ReplicaOptions, log hclog.Logger, quit func(string)) (node, error) {
	if err := probe(o.Listen); err != nil {
		return nil, err
	}
	ro := replica.Options{
		Dir: o.DataDir, Primary: o.Primary, Cluster: o.ClusterName, Fsync: o.Fsync, Memory: int64(o.Memory),
		BacklogMemory: int64(o.BacklogMemory), BacklogKeep: max(int64(o.BacklogKeep), 1), BacklogDisk: max(int64(o.BacklogDisk), 1), // 0 means the default there
		InboxBytes: int64(o.InboxBytes), SyncRate: int64(o.SyncRate), RefuseStale: !o.ServeStale, AcceptEmptyPrimary: o.AcceptEmptyPrimary,
		DropPrevious: !o.KeepPrevious, Logger: log,
	}
	if _, port, _ := splitAddress(o.Listen); port != 0 {
		ro.Announce = o.Listen
	}
	if o.ReplicaID != "" {
		id, err := store.ParseID(o.ReplicaID)
		if err != nil {
			return nil, err
		}
		ro.ReplicaID = id
	}
	n, err := replica.Open(ro)
	if err != nil {
		return nil, err
	}
	t := startTuner(log, n, &o)
	closeNode := func() error {
		t.stop()
		return n.Close()
	}
	s, err := serve(&o.NodeOptions, log, n.Keyspace(), func(listen string) Backend { return &replicaBackend{n, listen, &o} }, quit, closeNode)
	if err != nil {
		return nil, err
	}
	st := s.server.backend.Status()
	s.line = fmt.Sprintf("ready role=replica listen=%s primary=%s shards=%d", st.Listen, st.Replication, len(n.Shards()))
	return s, nil
}

// replicaBackend is a replica as its connections see it.
type replicaBackend struct {
	*replica.Node
	listen string
	o      *ReplicaOptions
}

func (b *replicaBackend) Role() string { return RoleReplica }

func (b *replicaBackend) Status() status.Node {
	n := b.Node.Status()
	n.Listen = b.listen
	return n
}

func (b *replicaBackend) Following() (host string, port int) {
	host, port, _ = splitAddress(b.Primary()) // Validate has tested it
	return host, port
}

func (b *replicaBackend) Wait(context.Context, []uint64, int, AckLevel) int { return 0 }

func (b *replicaBackend) DropSlot(string) (int, error) {
	return 0, errors.New("slots are the primary's: ask it")
}

func (b *replicaBackend) Params() []Param {
	yesNo := func(v bool) string {
		if v {
			return "yes"
		}
		return "no"
	}
	size := func(n units.Bytes) string { return strconv.FormatInt(int64(n), 10) }
	return []Param{
		fixed("primary", b.Primary()),
		fixed("replica-id", b.ReplicaID().String()),
		fixed("backlog-keep", size(b.o.BacklogKeep)),
		fixed("backlog-disk", size(b.o.BacklogDisk)),
		fixed("inbox-bytes", size(b.o.InboxBytes)),
		fixed("sync-rate", size(b.o.SyncRate)),
		fixed("serve-stale", yesNo(b.o.ServeStale)),
		fixed("replica-serve-stale-data", yesNo(b.o.ServeStale)),
		fixed("accept-empty-primary", yesNo(b.o.AcceptEmptyPrimary)),
		fixed("keep-previous", yesNo(b.o.KeepPrevious)),
	}
}

// tuner keeps the memory limit in step with the shard count, which a replica learns from its primary.
type tuner struct {
	quit, done chan struct{}
}

func startTuner(log hclog.Logger, n *replica.Node, o *ReplicaOptions) *tuner {
	t := &tuner{quit: make(chan struct{}), done: make(chan struct{})}
	// startTuner starts one goroutine. It owns nothing and ends with quit; stop waits for it.
	go func() {
		defer close(t.done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for shards := -1; ; {
			if now := len(n.Shards()); now != shards {
				shards = now
				tuneMemory(log, o.Memory, (o.BacklogMemory+o.InboxBytes)*units.Bytes(max(shards, 1)))
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

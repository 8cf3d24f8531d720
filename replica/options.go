package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/wire"
)

// DefaultSurplusLimit is that of [FollowerOptions], in bytes.
const DefaultSurplusLimit = 64 << 20

// FollowerOptions configure a [Follower]. Primary, Store and ReplicaID are required.
type FollowerOptions struct {
	// Primary is "host:port-base": shard i is followed at port-base + i. The host is resolved at each dial.
	Primary string
	// Store is the data directory.
	Store Store
	// ReplicaID is kept with the data directory; two processes with one id fight for its slot, and the second is refused.
	ReplicaID wire.ID
	// Nonce tells this process from another with the same id. Default: 128 random bits.
	Nonce wire.ID
	// Node is the node id of the data directory, against loops. May be zero.
	Node wire.ID
	// Announce is where clients reach this node, "host:port". May be empty.
	Announce string
	// AnnounceBase tells where this node serves replicas of its own, "host:port-base". Default: it serves none.
	AnnounceBase func() string
	// OnChange is called when the primary's place in its chain, [Follower.Path], is another one, and behind Store.SetMixed: before a shard
	// gets its new state. It must not wait, nor call Mixed or Stop. Default: nothing.
	OnChange func()
	// Cluster must equal the primary's cluster name.
	Cluster string
	// User and Password are what the primary asks for, if it does.
	User     string
	Password []byte
	// Format is the newest storage format that the state machine can load; 0 takes any.
	Format uint32
	// InboxBytes bounds the frames that wait for being applied, per shard. Default 32 MiB: a second of a fast link.
	InboxBytes int64
	// SyncRate limits the full syncs of all shards together, in bytes per second. Default 0: no limit.
	SyncRate int64
	// SurplusLimit is how many bytes of mutations that the primary does not have a shard undoes key by key; more than that
	// costs a full sync. Default 64 MiB: reading it back takes about as long as finding the keys. Less than 0 never does it.
	SurplusLimit int64
	// AcceptEmptyPrimary lets a primary without data replace this replica's. Default: such a primary is refused.
	AcceptEmptyPrimary bool
	// Silence ends a link on which nothing was heard, or whose HELLO was not answered within a second more. Default 9 s: a fault is
	// noticed within 10 s by everybody who looks.
	Silence time.Duration
	// StuckWrite ends a link on which a write made no progress. Default 9 s.
	StuckWrite time.Duration
	// Backoff says how long to wait between attempts.
	Backoff Backoff
	// Jitter draws from [0, 1). Default: the runtime's source.
	Jitter func() float64
	// Dial connects. Default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Adopt is given each connection and returns the one to use in its place. A program whose connections are waited for by one goroutine
	// uses it. Default: the connection itself.
	Adopt func(net.Conn) net.Conn
	// Surplus saves a shard's mutations from an offset on, which the primary lost and a full sync or a rewind is about to
	// replace. An error keeps that from happening. Default: they are not saved.
	Surplus func(s Shard, from uint64) error
	// FS holds the staging directories. Default: the machine's.
	FS vfs.FS
	// Logger may be nil, which is silent.
	Logger hclog.Logger
}

// EnsureDefaults fills in what is zero.
func (o *FollowerOptions) EnsureDefaults() {
	if o.Nonce.IsZero() {
		rand.Read(o.Nonce[:]) // never fails: crypto/rand ends the process instead
	}
	if o.InboxBytes == 0 {
		o.InboxBytes = 32 << 20
	}
	if o.SurplusLimit == 0 {
		o.SurplusLimit = DefaultSurplusLimit
	}
	if o.Silence == 0 {
		o.Silence = 9 * time.Second
	}
	if o.StuckWrite == 0 {
		o.StuckWrite = 9 * time.Second
	}
	o.Backoff.ensureDefaults()
	if o.Jitter == nil {
		o.Jitter = mathrand.Float64
	}
	if o.Dial == nil {
		limit := o.StuckWrite + netpoll.WriteStep // the link's own limit comes first, and tells why
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, address, limit) }
	}
	if o.Adopt == nil {
		o.Adopt = func(conn net.Conn) net.Conn { return conn }
	}
	if o.AnnounceBase == nil {
		o.AnnounceBase = func() string { return "" }
	}
	if o.OnChange == nil {
		o.OnChange = func() {}
	}
	if o.Surplus == nil {
		o.Surplus = func(Shard, uint64) error { return nil }
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
}

// Validate reports every fault of the options.
func (o *FollowerOptions) Validate() error {
	var errs []error
	if _, _, err := node.SplitAddress(o.Primary); err != nil {
		errs = append(errs, fmt.Errorf("primary %q: %w", o.Primary, err))
	}
	if o.Store == nil {
		errs = append(errs, errors.New("no store"))
	}
	if o.ReplicaID.IsZero() {
		errs = append(errs, errors.New("no replica id"))
	}
	if o.InboxBytes < 0 {
		errs = append(errs, fmt.Errorf("inbox of %d bytes: want at least 1", o.InboxBytes))
	}
	if o.SyncRate < 0 {
		errs = append(errs, fmt.Errorf("sync rate of %d bytes per second: want 0 for no limit, or more", o.SyncRate))
	}
	if o.Silence < 0 || o.StuckWrite < 0 {
		errs = append(errs, fmt.Errorf("time limits %s and %s: want more than 0", o.Silence, o.StuckWrite))
	}
	return errors.Join(errs...)
}

package node

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// Server is the half that serves replicas; *primary.Server is one. Its methods are safe for concurrent use.
type Server interface {
	// Status reports on one shard and its replicas.
	Status(shard int) status.Shard
	// Changed tells that the role, the path, Mixed or a lineage is another one now. When it returns, no ack of another generation
	// counts, and sessions that were welcomed with another lineage or path, or all if it is mixed, are being ended.
	Changed()
	// WaitAcked is primary.Server's.
	WaitAcked(ctx context.Context, offsets []uint64, replicas int, level slottable.Level) int
	// FreshReplicas is primary.Server's.
	FreshReplicas(maxLag time.Duration) int
	DropSlot(replica wire.ID) (int, error)
	SetReconnectWindow(time.Duration)
	ReconnectWindow() time.Duration
	// Close ends all sessions and closes the listeners. The shards stay open.
	Close() error
}

// ServeEnv is what a node gives its serving half.
type ServeEnv struct {
	Shards    []*shard.Shard
	Listeners []net.Listener // one a shard, in order; the half closes them, unless it returns an error
	Node      wire.ID
	Cluster   string
	Format    uint32
	FS        vfs.FS
	Dir       string
	Limits    func() (memory, keep, disk int64)
	Path      func() []wire.ID // node ids from the root of the chain down to this node
	Following func() bool      // it follows another node
	Streaming func() bool      // ... and hears everything from it
	Mixed     func() bool      // its shards may hold states of two histories
	Announce  func() string    // where clients reach this node
	// Takeover answers a primary that hands its role over to this node.
	Takeover func(context.Context, wire.Takeover) wire.TakeoverReply
	Logger   hclog.Logger
}

// ServeFunc starts the serving half; primary.Serve makes one.
type ServeFunc func(ServeEnv) (Server, error)

// Follower is the half that follows a primary; *replica.Follower is one. Its methods are safe for concurrent use.
type Follower interface {
	// Status tells of every shard what the follower knows: all but the Log part.
	Status() []status.Shard
	// Streaming reports whether every shard's link streams; Syncing, whether a full sync of any is under way.
	Streaming() bool
	Syncing() bool
	// LagMillis is how old what readers see may be, of the worst shard.
	LagMillis() float64
	// WaitCaughtUp returns once every shard has applied what the primary had when the call was made.
	WaitCaughtUp(ctx context.Context) error
	// Path is the parent's path as of its last answer, nil while none is known. Upstream is where clients reach the parent.
	Path() []wire.ID
	Upstream() string
	// Mixed is why a promotion now would mix two data sets, or nil.
	Mixed() error
	// Stop ends the links at once, without waiting for the primary. With drain, what the inboxes hold is applied first.
	Stop(drain bool) error
	// Discard removes what full syncs have staged and not loaded; the links have been stopped.
	Discard() error
}

// FollowEnv is what a node gives its following half.
type FollowEnv struct {
	Primary      string // "host:port-base"
	Store        DataSets
	ReplicaID    wire.ID
	Nonce, Node  wire.ID
	Announce     string        // where clients reach this node
	AnnounceBase func() string // this node's replication ports, "host:port-base", "" while there are none
	Cluster      string
	Format       uint32
	FS           vfs.FS
	Dir          string
	OnChange     func() // the parent's path is another one, or what was recorded by SetMixed
	Logger       hclog.Logger
}

// FollowFunc starts the following half; replica.Follow makes one.
type FollowFunc func(FollowEnv) (Follower, error)

// DataSets is the data directory as the following half uses it. Calls are not concurrent.
type DataSets interface {
	// Shards are those of the data set that readers see; none before the first one was made.
	Shards() []*shard.Shard
	// NewDataset makes a data set of n empty shards beside the present one. One that was begun with the same n and never
	// switched to is opened as it is; one with another n is removed.
	NewDataset(n int) ([]*shard.Shard, error)
	// Switch makes the data set of the last NewDataset the one that readers see.
	Switch() error
	// SetMixed records that the shards that readers see may hold states of two histories, or that they do not any more. It
	// is durable on return. Switch takes it back, and so does a promotion.
	SetMixed(bool) error
	// Mixed is what was recorded last.
	Mixed() bool
}

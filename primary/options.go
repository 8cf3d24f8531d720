package primary

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/wire"
)

// Defaults of [ServerOptions].
const (
	DefaultReconnectWindow = 60 * time.Second
	DefaultMaxReplicas     = 64
)

// slotsPerReplica bounds the slots of a shard to this multiple of MaxReplicas: detached slots are remembered for the
// reconnect window, and a peer that came with a new id each time must not fill the table meanwhile.
const slotsPerReplica = 4

// ServerOptions configure a [Server]. Shards, Listeners and Node are required.
type ServerOptions struct {
	// Shards are served in this order; Shards[i].ID() must be i.
	Shards []Shard
	// Listeners are one a shard, in the same order. The server closes them.
	Listeners []net.Listener
	// Node is this node's identity, against loops.
	Node wire.ID
	// Cluster is the name that replicas must give too; may be empty on both sides.
	Cluster string
	// Format is the storage format of a checkpoint's files, for replicas to refuse what they cannot load. 0: it does
	// not matter.
	Format uint32
	// FS holds snapshots and slots. Default: the machine's.
	FS vfs.FS
	// Dir is where slots.json is kept, so that slots outlive the process. Empty: they do not.
	Dir string
	// ReconnectWindow is how long a detached replica's slot keeps the log for it. Default 60 s.
	ReconnectWindow time.Duration
	// MaxReplicas is how many replicas a shard serves at a time; it also bounds connections that have not said HELLO
	// yet. Default 64.
	MaxReplicas int
	// Path tells where this node's data comes from: the node ids from the root of its chain down to this node. Default:
	// this node alone, which follows nobody. It must be quick, and is called with no lock held.
	Path func() []wire.ID
	// Following reports whether this node follows another one. Default: it does not.
	Following func() bool
	// Streaming reports whether a node that follows another one hears everything from it. Default: it does.
	Streaming func() bool
	// Mixed reports whether the shards of a node that follows another one may hold states of two histories: nobody is served meanwhile. It is
	// called with no lock held. Default: they do not.
	Mixed func() bool
	// Announce is where clients reach this node, "host:port", as replicas are told. Default: they are not told.
	Announce func() string
	// Takeover answers a primary that hands its role over to this node; it may take as long as a promotion. Default: no
	// handover is accepted.
	Takeover func(context.Context, wire.Takeover) wire.TakeoverReply
	// Authenticate tells why credentials are no good. Default: everybody may replicate.
	Authenticate func(user string, password []byte) error
	// Limits tells a log's bounds in bytes, for status and forecasts. Default: not known, shown as 0.
	Limits func() (memory, keep, disk int64)
	// Adopt is given each accepted connection and returns the one to use in its place. A program whose connections are waited for by
	// one goroutine uses it. Default: the connection itself.
	Adopt func(net.Conn) net.Conn
	// Logger may be nil, which is silent.
	Logger hclog.Logger
}

// EnsureDefaults fills in what is zero.
func (o *ServerOptions) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.ReconnectWindow == 0 {
		o.ReconnectWindow = DefaultReconnectWindow
	}
	if o.MaxReplicas == 0 {
		o.MaxReplicas = DefaultMaxReplicas
	}
	if o.Path == nil {
		self := []wire.ID{o.Node}
		o.Path = func() []wire.ID { return self }
	}
	if o.Following == nil {
		o.Following = func() bool { return false }
	}
	if o.Streaming == nil {
		o.Streaming = func() bool { return true }
	}
	if o.Mixed == nil {
		o.Mixed = func() bool { return false }
	}
	if o.Announce == nil {
		o.Announce = func() string { return "" }
	}
	if o.Takeover == nil {
		o.Takeover = func(_ context.Context, t wire.Takeover) wire.TakeoverReply {
			return wire.TakeoverReply{ID: t.ID, Outcome: wire.OutcomeRefused, Text: "this node plays one role only"}
		}
	}
	if o.Authenticate == nil {
		o.Authenticate = func(string, []byte) error { return nil }
	}
	if o.Adopt == nil {
		o.Adopt = func(conn net.Conn) net.Conn { return conn }
	}
	if o.Limits == nil {
		o.Limits = func() (memory, keep, disk int64) { return 0, 0, 0 }
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
}

// Validate reports every fault of the options.
func (o *ServerOptions) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("primary: "+format, args...)) }
	if len(o.Shards) == 0 {
		fault("no shards to serve")
	}
	if len(o.Listeners) != len(o.Shards) {
		fault("%d listeners for %d shards: each shard has a port of its own", len(o.Listeners), len(o.Shards))
	}
	for i, s := range o.Shards {
		if s.ID() != i {
			fault("shard %d stands in place %d", s.ID(), i)
		}
	}
	if o.Node.IsZero() {
		fault("the node has no identity")
	}
	if o.ReconnectWindow < 0 {
		fault("a reconnect window of %v is less than none", o.ReconnectWindow)
	}
	if o.MaxReplicas < 0 {
		fault("%d replicas at most is less than none", o.MaxReplicas)
	}
	return errors.Join(errs...)
}

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

// Defaults of [Options].
const (
	DefaultMemory            = 512 << 20 // bytes
	DefaultReplicationListen = "127.0.0.1"
)

// MinBackgroundCPU is the least that flushes and compactions must be given, in processors.
const MinBackgroundCPU = 0.01

// Options configure a node. Dir is required, Primary for a new directory's replica; everything else has a default. The
// fields that primary.Options and replica.Options have, too, are described there.
type Options struct {
	// Role is what a new directory becomes. One that has a role keeps it.
	Role store.Role
	// Primary is what a new replica follows, "host:port-base".
	Primary string
	Dir     string
	// Shards is for a primary; a replica learns it.
	Shards int
	// ReplicationListen and ReplicationPortBase are where replicas are served; Listen, if it is set, opens a shard's port
	// in their place.
	ReplicationListen   string
	ReplicationPortBase int
	Listen              func(shard int) (net.Listener, error)
	// Announce is where clients reach this node, AnnounceHost and AnnouncePortBase where replicas do, as others are told.
	// Default: the addresses that are listened on.
	Announce         string
	AnnounceHost     string
	AnnouncePortBase int
	Cluster          string
	ReplicaID        wire.ID
	Fsync            string
	Memory           int64
	BackgroundCPU    float64 // processors that flushes and compactions take while nobody waits for them; 0 is half of them
	// BacklogMemory, BacklogKeep and BacklogDisk bound each shard's backlog, in bytes.
	BacklogMemory, BacklogKeep, BacklogDisk int64
	RefuseStale, DropPrevious               bool
	// Tuning is that of the engine, if it is the state machine; for tests.
	Tuning       engine.Tuning
	StateMachine func(shard.Env) (shard.StateMachine, error)
	Format       uint32
	// BootID is the kernel's identity, Now the wall clock. Defaults: the machine's.
	BootID string
	Now    func() time.Time
	// User and Password are what other nodes ask for when this one asks them to take over.
	User     string
	Password []byte
	// Serve and Follow are the halves: primary.Serve and replica.Follow. Without Serve nobody is served, without Follow
	// nobody is followed, and the role cannot change.
	Serve  ServeFunc
	Follow FollowFunc
	// Dial connects to other nodes. Default: TCP.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	FS     vfs.FS
	Logger hclog.Logger
}

// EnsureDefaults fills in what is zero and does not depend on the data directory.
func (o *Options) EnsureDefaults() {
	if o.Role == "" {
		o.Role = store.Primary
	}
	if o.ReplicationListen == "" {
		o.ReplicationListen = DefaultReplicationListen
	}
	if o.Fsync == "" {
		o.Fsync = string(shard.FsyncEverySec)
	}
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	b := backlog.Options{Memory: o.BacklogMemory, Keep: o.BacklogKeep, Disk: o.BacklogDisk}
	b.EnsureDefaults()
	o.BacklogMemory, o.BacklogKeep, o.BacklogDisk = b.Memory, b.Keep, b.Disk
	if o.Dial == nil {
		var d net.Dialer
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
}

// Validate reports every fault of the options.
func (o *Options) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Dir == "" {
		fault("Dir is empty: give the data directory")
	}
	if o.Shards < 0 || o.Shards > store.MaxShards {
		fault("%d shards: the number must lie within 1 and %d", o.Shards, store.MaxShards)
	}
	if _, err := shard.ParseFsync(o.Fsync); err != nil {
		errs = append(errs, err)
	}
	if o.ReplicationPortBase != 0 {
		if err := CheckPorts(o.ReplicationPortBase, max(o.Shards, 1)); err != nil {
			errs = append(errs, err)
		}
	}
	if o.AnnouncePortBase < 0 || o.AnnouncePortBase > 65535 {
		fault("announced port base %d is not a port within 1 and 65535", o.AnnouncePortBase)
	}
	if o.Memory < 0 {
		fault("a memory of %d bytes is less than none", o.Memory)
	}
	if !(o.BackgroundCPU == 0 || o.BackgroundCPU >= MinBackgroundCPU) {
		fault("%g processors for background work: give at least %g, or 0 for half of what there are", o.BackgroundCPU, MinBackgroundCPU)
	}
	if o.Role == store.Replica || o.Primary != "" {
		if _, _, err := SplitAddress(o.Primary); err != nil {
			fault("primary %q: %w", o.Primary, err)
		}
	}
	return errors.Join(errs...)
}

// CheckPorts says whether each of n shards has a port, from base up, and otherwise names the range.
func CheckPorts(base, n int) error {
	if base < 1 || base+n-1 > 65535 {
		return fmt.Errorf("%d shards from port base %d need the ports %d-%d, which do not all lie within 1-65535: choose another --replication-port-base, or fewer shards",
			n, base, base, base+n-1)
	}
	return nil
}

var errNoPort = errors.New("want host:port, where port is the primary's replication base port")

// SplitAddress reads "host:port-base", such as "db1:16380" or "[::1]:16380".
func SplitAddress(address string) (host string, base int, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errors.Join(errNoPort, err)
	}
	base, err = strconv.Atoi(port)
	if err != nil || base < 1 || base > 65535 || host == "" {
		return "", 0, errNoPort
	}
	return host, base, nil
}

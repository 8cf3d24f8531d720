package server

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/internal/units"
)

// The replication ports lie this far above the RESP port, where nothing else is said.
const replicationPortDistance = 10000

const (
	maxShards = 256
	minMemory = 32 * units.MiB
	maxPort   = 65535
)

// NodeOptions are the flags that both programs have. The tags are the flags' defaults and help; the environment and the
// file use the flags' names (parse.go), and ${…} is what differs between the programs.
type NodeOptions struct {
	DataDir             string           `help:"Directory that holds everything the node keeps. One process at a time." default:"${dir}"`
	Listen              string           `help:"Address for RESP clients, host:port. Port 0 takes a free one." default:"${listen}"`
	Fsync               string           `help:"When the log is synced to disk: always (before each reply), everysec, or no." default:"everysec"`
	BacklogMemory       units.Bytes      `help:"Newest part of each shard's backlog that is kept in memory." default:"16MiB"`
	BacklogKeep         units.Bytes      `help:"Log that each shard keeps on disk whether or not a replica needs it." default:"128MiB"`
	BacklogDisk         units.Bytes      `help:"Log that each shard keeps at most, for replicas that need it and for large values that are not flushed yet." default:"2GiB"`
	Memory              units.Bytes      `help:"What the process may use for caches and buffers, beside the backlogs." default:"512MiB"`
	BackgroundCPU       float64          `help:"Processors that flushes and compactions take together, such as 0.5 or 2, unless somebody waits for them; 0 means half of what there are." name:"background-cpu" default:"0" placeholder:"N"`
	ClusterName         string           `help:"Name that a primary and its replicas must share." placeholder:"NAME"`
	ReplicationListen   string           `help:"Address for replicas, without a port. Default: the host of --listen." placeholder:"HOST"`
	ReplicationPortBase *int             `help:"Shard i listens for replicas on this port + i. Default: the port of --listen + 10000." placeholder:"PORT"`
	AnnounceHost        string           `help:"Host at which other nodes and clients reach this one, if it is not the one that is listened on." placeholder:"HOST"`
	AnnouncePortBase    int              `help:"Replication port base that other nodes are told, if it is not --replication-port-base." placeholder:"PORT"`
	ReconnectWindow     time.Duration    `help:"How long what a replica has acknowledged is remembered after it disconnects." default:"60s"`
	MaxReplicas         int              `help:"Connections that are accepted on each replication port." default:"64"`
	ReplicaID           string           `help:"Identity at a primary, a UUID. Default: one that is drawn once and kept in the data directory." placeholder:"UUID"`
	InboxBytes          units.Bytes      `help:"While following: frames that each shard takes in before it has applied them." default:"32MiB"`
	ServeStale          bool             `help:"While following: serve the old data while a full sync runs, marked stale; otherwise reads are answered -LOADING." default:"true" negatable:""`
	SurplusLimit        units.Bytes      `help:"While following: mutations of its own that a shard undoes key by key when the primary does not have them; more than that, or 0, costs a full sync." default:"64MiB"`
	AcceptEmptyPrimary  bool             `help:"Follow a primary that has no data and none of this replica's history, at the price of this replica's data."`
	KeepPrevious        bool             `help:"Keep the data that a full sync replaces until the next one." default:"true" negatable:""`
	SyncRate            units.Bytes      `help:"Bytes a second that a full sync may take; 0 means no limit." default:"0"`
	MinReplicasToWrite  int              `help:"Fewest replicas that must keep up for writes to be taken; 0 asks for none." default:"0"`
	MinReplicasMaxLag   time.Duration    `help:"How far behind a replica may be to count for --min-replicas-to-write, in whole seconds." default:"10s"`
	ReplicaMaxStaleness time.Duration    `help:"While following: answer reads -STALE when the data is older than this; 0 never does." default:"0s"`
	LogLevel            string           `help:"Least severe message that is logged: trace, debug, info, warn or error." default:"info"`
	LogFormat           string           `help:"How messages are written to standard error: text or json." default:"text"`
	CPUProfile          string           `help:"File that gets a CPU profile of the process, from its start until it is asked to stop." name:"cpu-profile" placeholder:"FILE"`
	Config              string           `help:"TOML file with the same names as keys. Flags rank above the environment, and that above the file." placeholder:"FILE"`
	Version             kong.VersionFlag `help:"Print the version and exit." env:"-"`
}

// PrimaryOptions are the flags of the program primary.
type PrimaryOptions struct {
	NodeOptions `embed:""`
	Shards      *int `help:"Shards of the keyspace, 1 to 256. Default: what the data directory has; in an empty one, the number of cores." placeholder:"N"`
}

// ReplicaOptions are the flags of the program replica.
type ReplicaOptions struct {
	NodeOptions `embed:""`
	Primary     string `help:"What a new replica follows: the primary's host and replication port base, such as 127.0.0.1:16380. REPLICAOF changes it while the process runs, and another value here at the next start. Required for a new data directory." placeholder:"HOST:PORT"`
}

// Validate reports every fault of the options, each with the value and the way out. The parser calls it.
func (o *PrimaryOptions) Validate() error {
	errs := o.faults()
	if o.Shards != nil && (*o.Shards < 1 || *o.Shards > maxShards) {
		errs = append(errs, fmt.Errorf("--shards: %d is not within 1 and %d", *o.Shards, maxShards))
	}
	if err := o.checkRange(o.atLeast()); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// replicationHost is the address that replicas connect to, without the port.
func (o *NodeOptions) replicationHost() string {
	if o.ReplicationListen != "" {
		return o.ReplicationListen
	}
	host, _, _ := splitAddress(o.Listen)
	return host
}

// portBase is the replication port of shard 0, or 0 while the RESP port is not known.
func (o *NodeOptions) portBase() int {
	if o.ReplicationPortBase != nil {
		return *o.ReplicationPortBase
	}
	_, port, err := splitAddress(o.Listen)
	if err != nil || port == 0 {
		return 0
	}
	return port + replicationPortDistance
}

// atLeast is how many shards there are for certain before the data directory is read.
func (o *PrimaryOptions) atLeast() int {
	if o.Shards == nil {
		return 1
	}
	return min(max(*o.Shards, 1), maxShards)
}

// checkRange reports a replication range that ports cannot hold, or that the RESP port lies in.
func (o *NodeOptions) checkRange(shards int) error {
	base := o.portBase()
	if base == 0 || o.ReplicationPortBase != nil && (base < 1 || base > maxPort) {
		return nil // not known yet, or a fault of its own
	}
	last := base + shards - 1
	if last > maxPort {
		return fmt.Errorf("--replication-port-base: %d shards need the ports %d-%d, and ports end at %d; give a base of at most %d, or fewer shards", shards, base, last, maxPort, maxPort-shards+1)
	}
	host, port, err := splitAddress(o.Listen)
	if err == nil && host == o.replicationHost() && port >= base && port <= last {
		return fmt.Errorf("--replication-port-base: %d shards need the ports %d-%d, and --listen has %d; give a base outside it", shards, base, last, port)
	}
	return nil
}

// hasRole reports whether the data directory says what the node is and whom it follows. One that cannot be read is told of
// when it is opened.
func (o *ReplicaOptions) hasRole() bool {
	role, _, err := store.Peek(vfs.Default, o.DataDir)
	return err != nil || role != ""
}

// Validate reports every fault of the options, each with the value and the way out. The parser calls it.
func (o *ReplicaOptions) Validate() error {
	errs := o.faults()
	if o.Primary == "" && o.hasRole() {
		// It follows whom it followed, or is a primary.
	} else if o.Primary == "" {
		errs = append(errs, errors.New("--primary is required: the primary's host and replication port base, such as 127.0.0.1:16380 (a primary prints it when it is ready)"))
	} else if host, port, err := splitAddress(o.Primary); err != nil {
		errs = append(errs, fmt.Errorf("--primary: %w", err))
	} else if host == "" || port == 0 {
		errs = append(errs, fmt.Errorf("--primary: %q needs a host and a port, such as 127.0.0.1:16380", o.Primary))
	}
	if err := o.checkRange(1); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (o *NodeOptions) faults() (errs []error) {
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.DataDir == "" {
		fault("--data-dir is empty: name a directory, such as ./data")
	}
	if _, _, err := splitAddress(o.Listen); err != nil {
		fault("--listen: %w", err)
	}
	if _, err := shard.ParseFsync(o.Fsync); err != nil {
		fault("--fsync: %q; give always, everysec or no", o.Fsync)
	}
	if o.BacklogMemory < units.MiB {
		fault("--backlog-memory: %s; give at least 1MiB", o.BacklogMemory)
	}
	if o.BacklogKeep < 0 {
		fault("--backlog-keep: %s is negative", o.BacklogKeep)
	}
	if o.BacklogDisk < o.BacklogKeep {
		fault("--backlog-disk: %s is less than --backlog-keep, %s; raise the one or lower the other", o.BacklogDisk, o.BacklogKeep)
	}
	if o.Memory < minMemory {
		fault("--memory: %s; give at least %s", o.Memory, minMemory)
	}
	if !(o.BackgroundCPU == 0 || o.BackgroundCPU >= node.MinBackgroundCPU) {
		fault("--background-cpu: %g; give at least %g, or 0 for half of the processors", o.BackgroundCPU, node.MinBackgroundCPU)
	}
	if _, _, err := net.SplitHostPort(o.ReplicationListen); err == nil {
		fault("--replication-listen: %q has a port; give the port of shard 0 with --replication-port-base", o.ReplicationListen)
	}
	if o.ReplicationPortBase != nil && (*o.ReplicationPortBase < 1 || *o.ReplicationPortBase > maxPort) {
		fault("--replication-port-base: %d is not a port; give one within 1 and %d, or leave it out for the port of --listen + %d", *o.ReplicationPortBase, maxPort, replicationPortDistance)
	}
	if _, _, err := net.SplitHostPort(o.AnnounceHost); err == nil {
		fault("--announce-host: %q has a port; give the host alone, and the port of shard 0 with --announce-port-base", o.AnnounceHost)
	}
	if o.AnnouncePortBase < 0 || o.AnnouncePortBase > maxPort {
		fault("--announce-port-base: %d is not a port within 1 and %d", o.AnnouncePortBase, maxPort)
	}
	if o.ReconnectWindow < 0 {
		fault("--reconnect-window: %s is negative", o.ReconnectWindow)
	}
	if o.MaxReplicas < 1 {
		fault("--max-replicas: %d; give at least 1", o.MaxReplicas)
	}
	if o.MinReplicasToWrite < 0 {
		fault("--min-replicas-to-write: %d is less than none", o.MinReplicasToWrite)
	}
	if o.MinReplicasMaxLag < time.Second || o.MinReplicasMaxLag%time.Second != 0 {
		fault("--min-replicas-max-lag: %s; give whole seconds, such as 10s", o.MinReplicasMaxLag)
	}
	if o.ReplicaMaxStaleness < 0 {
		fault("--replica-max-staleness: %s is negative", o.ReplicaMaxStaleness)
	}
	if o.ReplicaID != "" {
		if _, err := store.ParseID(o.ReplicaID); err != nil {
			fault("--replica-id: %w", err)
		}
	}
	if o.InboxBytes < 64*units.KiB {
		fault("--inbox-bytes: %s; give at least 64KiB", o.InboxBytes)
	}
	if _, ok := logLevels[o.LogLevel]; !ok {
		fault("--log-level: %q; give trace, debug, info, warn or error", o.LogLevel)
	}
	if o.LogFormat != "text" && o.LogFormat != "json" {
		fault("--log-format: %q; give text or json", o.LogFormat)
	}
	return errs
}

func splitAddress(s string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not host:port, such as 127.0.0.1:6380 or [::1]:6380", s)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > maxPort {
		return "", 0, fmt.Errorf("%q: %q is not a port within 0 and %d", s, text, maxPort)
	}
	return host, port, nil
}

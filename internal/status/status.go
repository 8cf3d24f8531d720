// Package status holds the figures that a node tells about itself: REPL.STATUS JSON sends them, replctl, the demo and
// the tests read them, and INFO is printed from them. They are plain values; nothing here computes.
package status

// Node is one process. Exactly one of a shard's Primary and Replica parts is set, by role.
type Node struct {
	Role        string    `json:"role"` // "primary" or "replica"
	ID          string    `json:"id"`   // node id, a UUID
	Version     string    `json:"version"`
	Uptime      float64   `json:"uptime_seconds"`
	Listen      string    `json:"listen,omitempty"`
	Replication string    `json:"replication,omitempty"` // its own replication ports, "host:first-last"
	Primary     string    `json:"primary,omitempty"`     // replica: what it follows, "host:port-base"
	Path        []string  `json:"path,omitempty"`        // node ids from the root of the chain down to this node
	Cluster     string    `json:"cluster,omitempty"`
	Replica     string    `json:"replica,omitempty"` // replica: its replica id
	Mixed       bool      `json:"mixed,omitempty"`   // replica: its shards may hold states of two histories, so it serves no replicas and is not promoted
	Ready       bool      `json:"ready"`
	Error       string    `json:"error,omitempty"`
	Failover    *Failover `json:"failover,omitempty"` // the last or running handover
	Shards      []Shard   `json:"shards"`
}

// States of a handover, as Redis names them.
const (
	FailoverNone       = "no-failover"
	FailoverWaiting    = "waiting-for-sync"     // writes are held until the target has everything
	FailoverInProgress = "failover-in-progress" // the target was asked to take over
)

// Failover is a planned handover of the primary's role.
type Failover struct {
	State  string  `json:"state"`
	Target string  `json:"target"`           // the target's replication address, "host:port-base"
	Hold   float64 `json:"hold_ms"`          // how long writes were held, so far or in all
	Result string  `json:"result,omitempty"` // of one that is over: "done" or why not
}

// Shard is one shard of a node.
type Shard struct {
	Shard     int               `json:"shard"`
	Position  string            `json:"position"` // "generation:offset" of what readers see, or "none"
	Offset    uint64            `json:"offset"`
	Lineage   []string          `json:"lineage"` // "generation@first", oldest first
	Error     string            `json:"error,omitempty"`
	Log       Log               `json:"log"`
	FullSyncs map[string]uint64 `json:"full_syncs"` // by reason, since the process started
	Resumes   uint64            `json:"resumes"`
	Rewinds   uint64            `json:"rewinds"`             // rejoins by difference
	Unsettled bool              `json:"unsettled,omitempty"` // a rejoin by difference is not over: its data is not to be read
	Refusals  map[string]uint64 `json:"refusals"`            // by code
	Slots     []Slot            `json:"slots,omitempty"`     // primary
	Link      *Link             `json:"link,omitempty"`      // replica
}

// Log is the state of one shard's log and backlog. Offsets name the next mutation.
type Log struct {
	Oldest      uint64  `json:"oldest"`       // first offset that a replica can still resume from
	MemoryFirst uint64  `json:"memory_first"` // first offset that is served from memory
	Published   uint64  `json:"published"`
	Next        uint64  `json:"next"`
	Durable     uint64  `json:"durable"`
	Bytes       int64   `json:"bytes"` // on disk
	MemoryBytes int64   `json:"memory_bytes"`
	MemoryLimit int64   `json:"memory_limit"`
	Keep        int64   `json:"keep"`
	Disk        int64   `json:"disk"`
	WriteRate   float64 `json:"write_rate"`       // bytes per second, over the last ten seconds or so
	Seconds     float64 `json:"seconds_retained"` // how long the backlog reaches back at that rate; -1 when nothing is written
	SyncPolicy  string  `json:"fsync"`
}

// Slot is what a primary remembers of one replica on one shard.
type Slot struct {
	Replica       string  `json:"replica"`
	Address       string  `json:"address"`                 // of the connection, or what the replica announced for clients
	AnnounceBase  string  `json:"announce_base,omitempty"` // the replica's own replication ports, "host:port-base"
	State         string  `json:"state"`                   // "online", "syncing" (full sync) or "detached"
	Received      uint64  `json:"received"`
	Applied       uint64  `json:"applied"`
	Durable       uint64  `json:"durable"`
	Sent          uint64  `json:"sent"`
	LagMutations  uint64  `json:"lag_mutations"`
	LagBytes      int64   `json:"lag_bytes"`
	LastAckAge    float64 `json:"last_ack_age_seconds"`
	DetachedFor   float64 `json:"detached_seconds"`  // 0 while attached
	ReapedIn      float64 `json:"reaped_in_seconds"` // -1 while attached
	RetainedBytes int64   `json:"retained_bytes"`    // backlog bytes from the slot's offset on
	BytesLeft     int64   `json:"bytes_left"`        // until the slot's offset is lost
	SecondsLeft   float64 `json:"seconds_left"`      // the same at the present write rate; -1 when nothing is written
	Sync          *Sync   `json:"sync,omitempty"`
}

// Link is a replica's side of one shard's session.
type Link struct {
	State         string  `json:"state"` // "connecting", "handshake", "syncing", "streaming", "backoff", "stopped"
	Received      uint64  `json:"received"`
	Applied       uint64  `json:"applied"`
	Durable       uint64  `json:"durable"`
	PrimaryOffset uint64  `json:"primary_offset"` // as far as the replica has heard
	LagMutations  uint64  `json:"lag_mutations"`
	LagBytes      int64   `json:"lag_bytes"`
	LagMillis     float64 `json:"lag_ms"`
	InboxBytes    int64   `json:"inbox_bytes"`
	LastIO        float64 `json:"last_io_seconds"`        // since anything was heard from the primary
	DownFor       float64 `json:"down_seconds"`           // 0 while streaming
	LastResync    string  `json:"last_resync,omitempty"`  // "resume", "rewind" or "fullsync:<reason>"
	LastRefusal   string  `json:"last_refusal,omitempty"` // "<code>: <text>"
	LastError     string  `json:"last_error,omitempty"`   // why the last session ended
	Stale         bool    `json:"stale"`                  // readers see data that may be old: not streaming
	Frames        uint64  `json:"frames"`                 // received in streams since the process started
	Mutations     uint64  `json:"mutations"`              // the same, mutations
	Bytes         uint64  `json:"bytes"`                  // the same, bytes of frames
	SnapshotBytes uint64  `json:"snapshot_bytes"`         // bytes of snapshot files received
	Sync          *Sync   `json:"sync,omitempty"`
}

// Sync is the progress of a full sync.
type Sync struct {
	Reason   string  `json:"reason"`
	Snapshot string  `json:"snapshot"`
	Bytes    uint64  `json:"bytes"`
	Total    uint64  `json:"total"`
	Rate     float64 `json:"bytes_per_second"`
	ETA      float64 `json:"eta_seconds"` // -1 when not known
}

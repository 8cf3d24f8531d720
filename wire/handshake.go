package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// ID is a 128-bit identity: of a replica, of one run of its process (the nonce), of a node's data directory, or of a
// snapshot. The zero ID means "none".
type ID [16]byte

// IsZero reports whether id is "none".
func (id ID) IsZero() bool { return id == ID{} }

// String gives the ID in the form of a UUID.
func (id ID) String() string {
	const hexDigits = "0123456789abcdef"
	out := make([]byte, 0, 36)
	for i, b := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			out = append(out, '-')
		}
		out = append(out, hexDigits[b>>4], hexDigits[b&15])
	}
	return string(out)
}

// MarshalText is [ID.String], for JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote, with or without its dashes.
func (id *ID) UnmarshalText(b []byte) error {
	plain := bytes.ReplaceAll(b, []byte("-"), nil)
	if len(plain) == hex.EncodedLen(len(id)) {
		if _, err := hex.Decode(id[:], plain); err == nil {
			return nil
		}
	}
	*id = ID{}
	return fmt.Errorf("%w: %q is not a UUID", ErrMalformed, b)
}

// CapDifference is the bit of [Hello].Capabilities that says: the replica can rejoin by difference ([KindRewind]).
const CapDifference = 1 << 0

// Hello is the replica's opening message on each shard's connection.
type Hello struct {
	Version      uint16
	Capabilities uint64   // bits: [CapDifference]
	Replica      ID       // lives in the replica's data directory
	Nonce        ID       // drawn at each start of the replica's process
	Node         ID       // the replica's own node id, against loops
	Announce     string   // where clients reach the replica, "host:port"; may be empty
	AnnounceBase string   // the replica's own replication ports, "host:port-base"; empty while it has none
	Cluster      string   // cluster name; must equal the primary's
	User         string   // credentials, empty when none
	Password     []byte   //
	Shard        uint32   // the shard that this connection is for
	Shards       uint32   // the replica's shard count, 0 while it has none
	Format       uint32   // newest storage format that the replica can load, 0 for "any"
	Position     Position // zero for an empty replica
	Lineage      Lineage  // the replica's own, up to its position
	Snapshot     ID       // a full sync that was cut, to go on with
	// Settles is the position from which on the data of a replica that has undone a surplus is whole, zero for one whose data
	// is. Its tag is a required one: who does not know it must not take the replica for one that is at Position.
	Settles Position
}

// AppendHello appends h as a frame.
func AppendHello(dst []byte, h Hello) []byte {
	b := binary.LittleEndian.AppendUint16(nil, h.Version)
	b = appendField64(b, FieldCapabilities, h.Capabilities)
	b = appendFieldID(b, FieldReplicaID, h.Replica)
	b = appendFieldID(b, FieldNonce, h.Nonce)
	b = appendFieldID(b, FieldNode, h.Node)
	b = appendField(b, FieldAnnounce, []byte(h.Announce))
	b = appendField(b, FieldAnnounceBase, []byte(h.AnnounceBase))
	b = appendField(b, FieldCluster, []byte(h.Cluster))
	b = appendField(b, FieldUser, []byte(h.User))
	b = appendField(b, FieldPassword, h.Password)
	b = appendField32(b, FieldShard, h.Shard)
	b = appendField32(b, FieldShards, h.Shards)
	b = appendField32(b, FieldFormat, h.Format)
	b = appendFieldPosition(b, FieldPosition, h.Position)
	b = appendField(b, FieldLineage, AppendLineage(nil, h.Lineage))
	b = appendFieldID(b, FieldSnapshot, h.Snapshot)
	b = appendFieldPosition(b, FieldSettles|FieldRequired, h.Settles)
	return AppendControl(dst, KindHello, b)
}

// ParseHello reads the payload of a hello frame.
func ParseHello(payload []byte) (Hello, error) {
	m, err := parseMessage(KindHello, payload)
	return Hello{
		Version: m.version, Capabilities: m.capabilities, Replica: m.replica, Nonce: m.nonce, Node: m.node,
		Announce: m.announce, AnnounceBase: m.announceBase, Cluster: m.cluster, User: m.user, Password: m.password, Shard: m.shard, Shards: m.shards,
		Format: m.format, Position: m.position, Lineage: m.lineage, Snapshot: m.snapshot, Settles: m.settles,
	}, err
}

// Welcome is the primary's answer when it accepts: RESUME, FULLSYNC when Reason is set, or REWIND when Rewind is.
type Welcome struct {
	Version  uint16
	Node     ID       // the primary's node id
	Shard    uint32   //
	Shards   uint32   // the primary's shard count
	Format   uint32   // storage format of the snapshot's files
	Position Position // where the stream begins; in a full sync, the snapshot's; in a rewind, the newest that both have
	Next     uint64   // the primary's next offset, so that the replica knows how far behind it is
	Lineage  Lineage  // the primary's
	Reason   Reason   // why a full sync; empty in a resume
	Snapshot ID       // the snapshot to be fetched; zero but in a full sync
	Rewind   bool     // the replica is to undo what it has from Position on
	Path     []ID     // node ids from the root of the chain, which follows nobody, down to the primary itself
	Announce string   // where clients reach the primary, "host:port"; may be empty
}

// Reason says why a session starts with a full sync.
type Reason string

// The reasons for a full sync.
const (
	ReasonEmpty             Reason = "empty"              // the replica has no data
	ReasonEvicted           Reason = "evicted"            // the backlog no longer holds the replica's offset
	ReasonUnknownGeneration Reason = "unknown-generation" // the replica's generation is not on the primary's lineage
	ReasonDiverged          Reason = "diverged"           // the replica has mutations that the primary does not have
	ReasonShardLayout       Reason = "shard-layout"       // the replica's shard count is another
)

// AppendWelcome appends w as a resume frame, as a rewind frame, or as a fullsync frame when it has a reason.
func AppendWelcome(dst []byte, w Welcome) []byte {
	b := binary.LittleEndian.AppendUint16(nil, w.Version)
	b = appendFieldID(b, FieldNode, w.Node)
	b = appendField32(b, FieldShard, w.Shard)
	b = appendField32(b, FieldShards, w.Shards)
	b = appendField32(b, FieldFormat, w.Format)
	b = appendFieldPosition(b, FieldPosition, w.Position)
	b = appendField64(b, FieldNext, w.Next)
	b = appendField(b, FieldLineage, AppendLineage(nil, w.Lineage))
	b = appendField(b, FieldPath, appendIDs(nil, w.Path))
	b = appendField(b, FieldAnnounce, []byte(w.Announce))
	kind := KindResume
	if w.Rewind {
		kind = KindRewind
	}
	if w.Reason != "" {
		kind = KindFullSync
		b = appendField(b, FieldReason, []byte(w.Reason))
		b = appendFieldID(b, FieldSnapshot, w.Snapshot)
	}
	return AppendControl(dst, kind, b)
}

// ParseWelcome reads the payload of a resume, rewind or fullsync frame.
func ParseWelcome(kind Kind, payload []byte) (Welcome, error) {
	m, err := parseMessage(kind, payload)
	w := Welcome{
		Version: m.version, Node: m.node, Shard: m.shard, Shards: m.shards, Format: m.format, Position: m.position,
		Next: m.next, Lineage: m.lineage, Reason: Reason(m.reason), Snapshot: m.snapshot,
		Rewind: kind == KindRewind, Path: m.path, Announce: m.announce,
	}
	if err == nil && (kind == KindFullSync) != (w.Reason != "") {
		err = malformed("a %s with the reason %q", kind, w.Reason)
	}
	return w, err
}

// Code says why a session was refused, or ended by BYE.
type Code string

// The codes of a refusal.
const (
	CodeVersion   Code = "version"      // another protocol version
	CodeAuth      Code = "auth"         // credentials missing or wrong
	CodeCluster   Code = "cluster-name" // another cluster's name
	CodeLoop      Code = "loop"         // the replica is this node, or this node gets its data from the replica
	CodeShard     Code = "shard"        // no such shard on this port
	CodeSlotTaken Code = "slot-taken"   // another process holds this replica id; the text names it
	CodeBusy      Code = "busy"         // too many replicas, or no room for a snapshot; try later
	CodeLoading   Code = "loading"      // the primary is starting, or has no data of its own yet, or none that is whole; try later
	CodeBehind    Code = "behind"       // this node follows another one and has not got as far as the replica; try later
)

// The codes of a BYE, the stated reason with which a running session ends.
const (
	CodeShutdown Code = "shutdown" // the sender stops cleanly
	CodeProtocol Code = "protocol" // the peer broke the protocol; the text says how
	CodeCorrupt  Code = "corrupt"  // a frame or a file was damaged
	CodeTimeout  Code = "timeout"  // the peer was silent or a write was stuck
	CodeEvicted  Code = "evicted"  // the backlog lost the session's offset
	CodeReplaced Code = "replaced" // the same process opened a newer session
	CodeDropped  Code = "dropped"  // an operator dropped the slot
	CodeFailed   Code = "failed"   // the sender's shard failed; the text says why
	CodeRole     Code = "role"     // the sender's role, history or place in the chain is another one now; dial again
)

// Refusal ends a handshake (REFUSE) or a session (BYE).
type Refusal struct {
	Version uint16
	Code    Code
	Text    string
	Shards  uint32 // the primary's shard count, 0 when it does not say
}

// AppendRefusal appends r as a frame of kind [KindRefuse] or [KindBye].
func AppendRefusal(dst []byte, kind Kind, r Refusal) []byte {
	b := binary.LittleEndian.AppendUint16(nil, r.Version)
	b = appendField(b, FieldCode, []byte(r.Code))
	b = appendField(b, FieldText, []byte(r.Text))
	if r.Shards != 0 {
		b = appendField32(b, FieldShards, r.Shards)
	}
	return AppendControl(dst, kind, b)
}

// ParseRefusal reads the payload of a refuse or bye frame.
func ParseRefusal(kind Kind, payload []byte) (Refusal, error) {
	m, err := parseMessage(kind, payload)
	return Refusal{Version: m.version, Code: Code(m.code), Text: m.text, Shards: m.shards}, err
}

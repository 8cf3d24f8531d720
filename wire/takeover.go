package wire

import (
	"encoding/binary"
	"fmt"
)

// Takeover asks a replica to become the primary in the sender's place (a planned handover), or whether it would, or takes
// such a request back. It is the only frame of a connection of its own to the receiver's replication port of shard 0, but
// for the request that follows a probe which was answered [OutcomeReady].
type Takeover struct {
	ID           ID         // of the handover; a request with an id that was carried out already changes nothing
	Cancel       bool       // void the request with this id, or say that it was done
	Probe        bool       // change nothing, only say what the answer would be
	Node         ID         // the sender's node id: the receiver must be following it
	Cluster      string     // cluster name; must equal the receiver's
	User         string     // credentials, empty when none
	Password     []byte     //
	Announce     string     // where clients reach the sender, "host:port"; may be empty
	AnnounceBase string     // where replicas reach it, "host:port-base"; may be empty
	Positions    []Position // the sender's, one a shard, in order: the receiver must have applied exactly these
}

// Outcome is what became of a handover.
type Outcome string

// The outcomes.
const (
	OutcomeDone    Outcome = "done"    // the receiver is the primary, by this request or an earlier one of its id
	OutcomeRefused Outcome = "refused" // the receiver stays what it is; the text says why
	OutcomeVoid    Outcome = "void"    // the request was taken back and will never be carried out
	OutcomeReady   Outcome = "ready"   // the receiver would take over, as a probe asked; the request may follow on the same connection
)

// TakeoverReply answers a takeover. The receiver closes the connection behind any but [OutcomeReady].
type TakeoverReply struct {
	ID        ID // of the handover
	Outcome   Outcome
	Text      string     // why it was refused
	Positions []Position // the receiver's, one a shard, in order
}

// AppendTakeover appends t as a frame of this version.
func AppendTakeover(dst []byte, t Takeover) []byte {
	b := binary.LittleEndian.AppendUint16(nil, Version)
	b = appendFieldID(b, FieldTakeover, t.ID)
	if t.Cancel {
		b = appendField(b, FieldCancel, []byte{1})
	}
	if t.Probe { // required: who does not know it would take over
		b = appendField(b, FieldProbe|FieldRequired, []byte{1})
	}
	b = appendFieldID(b, FieldNode, t.Node)
	b = appendField(b, FieldCluster, []byte(t.Cluster))
	b = appendField(b, FieldUser, []byte(t.User))
	b = appendField(b, FieldPassword, t.Password)
	b = appendField(b, FieldAnnounce, []byte(t.Announce))
	b = appendField(b, FieldAnnounceBase, []byte(t.AnnounceBase))
	b = appendField(b, FieldPositions, appendPositions(nil, t.Positions))
	return AppendControl(dst, KindTakeover, b)
}

// ParseTakeover reads the payload of a takeover frame. One of another version is refused with ErrUnknown.
func ParseTakeover(b []byte) (Takeover, error) {
	m, err := parseMessage(KindTakeover, b)
	if err == nil {
		err = m.ofThisVersion(KindTakeover)
	}
	return Takeover{
		ID: m.takeover, Cancel: m.cancel, Probe: m.probe, Node: m.node, Cluster: m.cluster, User: m.user, Password: m.password,
		Announce: m.announce, AnnounceBase: m.announceBase, Positions: m.positions,
	}, err
}

// AppendTakeoverReply appends r as a frame of this version.
func AppendTakeoverReply(dst []byte, r TakeoverReply) []byte {
	b := binary.LittleEndian.AppendUint16(nil, Version)
	b = appendFieldID(b, FieldTakeover, r.ID)
	b = appendField(b, FieldOutcome, []byte(r.Outcome))
	b = appendField(b, FieldText, []byte(r.Text))
	b = appendField(b, FieldPositions, appendPositions(nil, r.Positions))
	return AppendControl(dst, KindTakeoverReply, b)
}

// ParseTakeoverReply reads the payload of a takeover-reply frame. Another version, or an outcome that this version does
// not know, is refused with ErrUnknown.
func ParseTakeoverReply(b []byte) (TakeoverReply, error) {
	m, err := parseMessage(KindTakeoverReply, b)
	if err == nil {
		err = m.ofThisVersion(KindTakeoverReply)
	}
	r := TakeoverReply{ID: m.takeover, Outcome: Outcome(m.outcome), Text: m.text, Positions: m.positions}
	if err != nil {
		return r, err
	}
	switch r.Outcome {
	case OutcomeDone, OutcomeRefused, OutcomeVoid, OutcomeReady:
		return r, nil
	}
	return r, fmt.Errorf("%w: the outcome %q of a takeover", ErrUnknown, r.Outcome)
}

func (m *message) ofThisVersion(kind Kind) error {
	if m.version != Version {
		return fmt.Errorf("%w: a %s of protocol version %d, this is version %d", ErrUnknown, kind, m.version, Version)
	}
	return nil
}

func appendPositions(dst []byte, ps []Position) []byte {
	for _, p := range ps {
		dst = AppendPosition(dst, p)
	}
	return dst
}

func parsePositions(b []byte) ([]Position, error) {
	if len(b)%PositionSize != 0 {
		return nil, malformed("positions of %d bytes: each has %d", len(b), PositionSize)
	}
	ps := make([]Position, 0, len(b)/PositionSize)
	for ; len(b) > 0; b = b[PositionSize:] {
		p, err := ParsePosition(b[:PositionSize])
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

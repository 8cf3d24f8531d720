package wire_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/wire"
)

// A part is one named run of bytes of a frame.
type part struct {
	at    int
	bytes []byte
	name  string
	value string
}

// annotator cuts a frame into parts. It reads the bytes with encoding/binary alone, so that a mistake which the
// package's builder and parser share does not pass for the format.
type annotator struct {
	t     tb
	raw   []byte
	at    int
	parts []part
}

func annotate(t tb, raw []byte) []part {
	a := &annotator{t: t, raw: raw}
	a.take(2, "magic", "")
	kind := wire.Kind(a.raw[a.at])
	a.take(1, "kind", kind.String())
	a.take(1, "flags", "")
	length := int(a.u32("length"))
	a.u64("first")
	a.time("commit")
	a.u32("count")
	a.crc("headercrc", 28)
	end := a.at + length
	switch kind {
	case wire.KindMutations:
		for a.at < end {
			a.operation()
		}
	case wire.KindHeartbeat:
		a.position("position")
		a.time("clock")
		a.take(8, "digest", "")
		a.u64("sent")
		a.u64("pending")
	case wire.KindAck:
		a.u64("received")
		a.u64("applied")
		a.u64("durable")
	case wire.KindManifest:
		a.take(16, "snapshot", "")
		for range a.u32("count") {
			a.u64("size")
			a.take(16, "sum", "")
			n := int(a.u16("namelen"))
			a.text(n, "name")
		}
	case wire.KindFetch:
		a.take(16, "snapshot", "")
		for range a.u32("count") {
			a.u32("file")
			a.u64("from")
		}
	case wire.KindChunk:
		a.u32("file")
		a.u64("from")
		a.text(end-a.at, "data")
	case wire.KindKeepalive:
	case wire.KindAsk:
		a.u64("offset")
	case wire.KindSnapshotEnd:
		a.take(16, "snapshot", "")
	case wire.KindWantKeys:
		a.take(1, "last", "")
		for a.at < end {
			a.text(int(a.u32("len")), "key")
		}
	case wire.KindValues:
		for a.at < end {
			a.operation()
		}
	case wire.KindValuesEnd:
		a.position("position")
	case wire.KindHello, wire.KindResume, wire.KindRewind, wire.KindFullSync, wire.KindRefuse, wire.KindBye,
		wire.KindTakeover, wire.KindTakeoverReply:
		a.u16("version")
		for a.at < end {
			a.field()
		}
	default:
		t.Fatalf("no annotation for a %s frame: add it, docs/protocol.md needs it", kind)
	}
	if a.at != end {
		t.Fatalf("a %s frame: the annotation ends at byte %d, the payload at %d", kind, a.at, end)
	}
	a.crc("crc", end)
	if a.at != len(raw) {
		t.Fatalf("a %s frame: %d bytes behind the checksum", kind, len(raw)-a.at)
	}
	return a.parts
}

func (a *annotator) take(n int, name, value string) []byte {
	if a.at+n > len(a.raw) {
		a.t.Fatalf("%s at byte %d needs %d bytes, the frame has %d", name, a.at, n, len(a.raw))
	}
	b := a.raw[a.at : a.at+n]
	a.parts = append(a.parts, part{at: a.at, bytes: b, name: name, value: value})
	a.at += n
	return b
}

func (a *annotator) value(format string, v any) {
	a.parts[len(a.parts)-1].value = fmt.Sprintf(format, v)
}

func (a *annotator) u16(name string) uint16 {
	v := binary.LittleEndian.Uint16(a.take(2, name, ""))
	a.value("%d", v)
	return v
}

func (a *annotator) u32(name string) uint32 {
	v := binary.LittleEndian.Uint32(a.take(4, name, ""))
	a.value("%d", v)
	return v
}

func (a *annotator) u64(name string) {
	a.value("%d", binary.LittleEndian.Uint64(a.take(8, name, "")))
}

func (a *annotator) time(name string) {
	v := int64(binary.LittleEndian.Uint64(a.take(8, name, "")))
	if v == 0 {
		a.value("%d", v)
		return
	}
	a.value("%s", time.UnixMicro(v).UTC().Format(time.RFC3339Nano))
}

func (a *annotator) text(n int, name string) {
	b := a.take(n, name, "")
	if len(b) <= 64 {
		a.value("%q", b)
	}
}

func (a *annotator) position(name string) {
	a.take(16, name+".generation", "")
	a.u64(name + ".offset")
}

func (a *annotator) crc(name string, covers int) {
	v := binary.LittleEndian.Uint32(a.take(4, name, ""))
	if want := crc32.Checksum(a.raw[:covers], crc32.MakeTable(crc32.Castagnoli)); v != want {
		a.t.Fatalf("%s is %08x, the CRC32C of the %d bytes before it is %08x", name, v, covers, want)
	}
	a.value("of the %d bytes before it", covers)
}

func (a *annotator) uvarint(name string) int {
	v, n := binary.Uvarint(a.raw[a.at:])
	if n <= 0 {
		a.t.Fatalf("%s at byte %d is no uvarint", name, a.at)
	}
	a.take(n, name, fmt.Sprint(v))
	return int(v)
}

func (a *annotator) operation() {
	kind := wire.OpKind(a.raw[a.at])
	a.take(1, "op", kind.String())
	switch kind {
	case wire.OpPut:
		a.text(a.uvarint("keylen"), "key")
		a.text(a.uvarint("vallen"), "value")
	case wire.OpDelete:
		a.text(a.uvarint("keylen"), "key")
	case wire.OpDeleteRange:
		a.text(a.uvarint("startlen"), "start")
		a.text(a.uvarint("endlen"), "end")
	}
}

// fieldKinds tells how docs/protocol.md spells each field: the name, and how its value reads.
var fieldKinds = map[wire.Field]struct{ name, form string }{
	wire.FieldCapabilities: {"capabilities", "bits"},
	wire.FieldReplicaID:    {"replica-id", "id"},
	wire.FieldNonce:        {"nonce", "id"},
	wire.FieldAnnounce:     {"announce", "text"},
	wire.FieldCluster:      {"cluster", "text"},
	wire.FieldShard:        {"shard", "u32"},
	wire.FieldShards:       {"shards", "u32"},
	wire.FieldPosition:     {"position", "position"},
	wire.FieldLineage:      {"lineage", "lineage"},
	wire.FieldUser:         {"user", "text"},
	wire.FieldPassword:     {"password", "text"},
	wire.FieldSnapshot:     {"snapshot", "id"},
	wire.FieldNode:         {"node", "id"},
	wire.FieldCode:         {"code", "text"},
	wire.FieldText:         {"text", "text"},
	wire.FieldReason:       {"reason", "text"},
	wire.FieldFormat:       {"format", "u32"},
	wire.FieldNext:         {"next", "u64"},
	wire.FieldAnnounceBase: {"announce-base", "text"},
	wire.FieldPath:         {"path", "ids"},
	wire.FieldTakeover:     {"takeover", "id"},
	wire.FieldCancel:       {"cancel", "bits"},
	wire.FieldProbe:        {"probe", "bits"},
	wire.FieldPositions:    {"positions", "positions"},
	wire.FieldOutcome:      {"outcome", "text"},
	wire.FieldSettles:      {"settles", "position"},
}

func (a *annotator) field() {
	tag := wire.Field(a.u16("tag"))
	k, ok := fieldKinds[tag&^wire.FieldRequired]
	if !ok {
		a.t.Fatalf("field %d has no entry in fieldKinds: add it, docs/protocol.md needs it", tag)
	}
	required := ""
	if tag&wire.FieldRequired != 0 {
		required = ", required"
	}
	a.value("%s", fmt.Sprintf("%d (%s%s)", tag&^wire.FieldRequired, k.name, required))
	n := int(a.u32("length"))
	end := a.at + n
	switch k.form {
	case "bits", "id":
		a.take(n, k.name, "")
	case "ids":
		for range n / 16 {
			a.take(16, k.name, "")
		}
	case "u32":
		a.u32(k.name)
	case "u64":
		a.u64(k.name)
	case "text":
		a.text(n, k.name)
	case "position":
		a.position(k.name)
	case "positions":
		for a.at < end {
			a.position("position")
		}
	case "lineage":
		for a.at < end {
			a.take(16, "generation", "")
			a.u64("first")
		}
	}
	if a.at != end {
		a.t.Fatalf("field %s ends at byte %d, its length says %d", k.name, a.at, end)
	}
}

// dump writes parts as lines of "position  bytes | name = value", sixteen bytes a line.
func dump(parts []part) string {
	var s strings.Builder
	for _, p := range parts {
		label := "| " + p.name
		if p.value != "" {
			label += " = " + p.value
		}
		for from := 0; from < len(p.bytes) || from == 0; from += 16 {
			line := fmt.Sprintf("%04x  %-48s%s", p.at+from, fmt.Sprintf("% x ", p.bytes[from:min(from+16, len(p.bytes))]), label)
			s.WriteString(strings.TrimRight(line, " ") + "\n")
			label = "|"
		}
	}
	return s.String()
}

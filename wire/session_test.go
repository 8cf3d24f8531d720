package wire_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/wire"
)

func drawID(t *rapid.T, label string) (id wire.ID) {
	copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
	return id
}

func drawPosition(t *rapid.T) wire.Position {
	if rapid.Bool().Draw(t, "none") {
		return wire.Position{}
	}
	return wire.Position{Generation: drawGeneration(t), Offset: rapid.Uint64().Draw(t, "offset")}
}

func orNil(l wire.Lineage) wire.Lineage {
	if len(l) == 0 {
		return nil
	}
	return l
}

// payload parses a frame that was just built and returns its payload.
func payload(t tb, raw []byte, kind wire.Kind) []byte {
	t.Helper()
	f, err := wire.ParseFrame(raw)
	mustEqual(t, err, nil)
	mustEqual(t, f.Kind, kind)
	mustEqual(t, len(f.Raw), len(raw))
	return f.Payload
}

func TestHandshakeRoundTrip(t *testing.T) {
	text := rapid.StringN(0, 40, 200)
	rapid.Check(t, func(t *rapid.T) {
		hello := wire.Hello{
			Version: rapid.Uint16().Draw(t, "version"), Capabilities: rapid.Uint64().Draw(t, "capabilities"),
			Replica: drawID(t, "replica"), Nonce: drawID(t, "nonce"), Node: drawID(t, "node"),
			Announce: text.Draw(t, "announce"), Cluster: text.Draw(t, "cluster"), User: text.Draw(t, "user"),
			Shard: rapid.Uint32().Draw(t, "shard"), Shards: rapid.Uint32().Draw(t, "shards"), Format: rapid.Uint32().Draw(t, "format"),
			Position: drawPosition(t), Lineage: orNil(drawLineage(t, 0)), Snapshot: drawID(t, "snapshot"), Settles: drawPosition(t),
		}
		if p := text.Draw(t, "password"); p != "" {
			hello.Password = []byte(p)
		}
		gotHello, err := wire.ParseHello(payload(t, wire.AppendHello(nil, hello), wire.KindHello))
		mustEqual(t, err, nil)
		mustEqual(t, gotHello, hello)

		welcome := wire.Welcome{
			Version: hello.Version, Node: hello.Node, Shard: hello.Shard, Shards: hello.Shards, Format: hello.Format,
			Position: hello.Position, Next: rapid.Uint64().Draw(t, "next"), Lineage: hello.Lineage,
		}
		kind := wire.KindResume
		if rapid.Bool().Draw(t, "full sync") {
			kind, welcome.Reason, welcome.Snapshot = wire.KindFullSync, wire.ReasonEvicted, hello.Snapshot
		}
		gotWelcome, err := wire.ParseWelcome(kind, payload(t, wire.AppendWelcome(nil, welcome), kind))
		mustEqual(t, err, nil)
		mustEqual(t, gotWelcome, welcome)

		refusal := wire.Refusal{Version: hello.Version, Code: wire.CodeBusy, Text: hello.Announce, Shards: hello.Shards}
		kind = rapid.SampledFrom([]wire.Kind{wire.KindRefuse, wire.KindBye}).Draw(t, "kind")
		gotRefusal, err := wire.ParseRefusal(kind, payload(t, wire.AppendRefusal(nil, kind, refusal), kind))
		mustEqual(t, err, nil)
		mustEqual(t, gotRefusal, refusal)
	})
}

// TestHelloFits: the largest sensible hello, with the longest lineage that is kept, is accepted from a stranger.
func TestHelloFits(t *testing.T) {
	var l wire.Lineage
	for i := range wire.MaxLineage {
		var g wire.Generation
		binary.LittleEndian.PutUint32(g[:], uint32(i+1))
		l = l.Begin(g, uint64(i))
	}
	hello := wire.Hello{
		Lineage: l, Announce: strings.Repeat("a", 255), Cluster: strings.Repeat("c", 255), User: strings.Repeat("u", 255),
		Password: []byte(strings.Repeat("p", 4096)),
	}
	if n := len(payload(t, wire.AppendHello(nil, hello), wire.KindHello)); n > wire.MaxHandshake {
		t.Errorf("a hello of %d bytes, at most %d are accepted", n, wire.MaxHandshake)
	}
}

func field(tag wire.Field, v ...byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, uint16(tag))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

// TestHandshakeFields: an unknown optional field is skipped, an unknown required one refused, whatever surrounds it.
func TestHandshakeFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		future := wire.Field(rapid.Uint16Range(1000, 0x7fff).Draw(t, "tag"))
		value := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "value")
		known := [][]byte{field(wire.FieldShard, 3, 0, 0, 0), field(wire.FieldCluster, []byte("orders")...), field(wire.FieldRequired|wire.FieldFormat, 9, 0, 0, 0)}
		at := rapid.IntRange(0, len(known)).Draw(t, "at")
		message := func(tag wire.Field) []byte {
			b := []byte{1, 0}
			for i, f := range known {
				if i == at {
					b = append(b, field(tag, value...)...)
				}
				b = append(b, f...)
			}
			if at == len(known) {
				b = append(b, field(tag, value...)...)
			}
			return b
		}
		h, err := wire.ParseHello(message(future))
		mustEqual(t, err, nil)
		mustEqual(t, h, wire.Hello{Version: 1, Shard: 3, Cluster: "orders", Format: 9})
		if _, err := wire.ParseHello(message(future | wire.FieldRequired)); !errors.Is(err, wire.ErrUnknown) {
			t.Fatalf("an unknown required field: %v, want ErrUnknown", err)
		}
	})
}

func TestHandshakeRefuses(t *testing.T) {
	with := func(fields ...[]byte) []byte {
		b := []byte{1, 0}
		for _, f := range fields {
			b = append(b, f...)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":                     {},
		"half a version":              {1},
		"half a field":                with([]byte{1, 0, 8, 0, 0}),
		"a field past the end":        with([]byte{4, 0, 9, 0, 0, 0, 'x'}),
		"a field of 4 GiB":            with([]byte{4, 0, 0xff, 0xff, 0xff, 0xff, 'x'}),
		"a shard of three bytes":      with(field(wire.FieldShard, 1, 2, 3)),
		"a position of 23 bytes":      with(field(wire.FieldPosition, make([]byte, 23)...)),
		"a lineage of 25 bytes":       with(field(wire.FieldLineage, make([]byte, 25)...)),
		"a lineage of generation 0":   with(field(wire.FieldLineage, make([]byte, 24)...)),
		"an id of 15 bytes, required": with(field(wire.FieldRequired|wire.FieldReplicaID, make([]byte, 15)...)),
	} {
		if _, err := wire.ParseHello(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	reason := with(field(wire.FieldReason, []byte("empty")...))
	if _, err := wire.ParseWelcome(wire.KindResume, reason); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("a resume with a reason: %v, want ErrMalformed", err)
	}
	if _, err := wire.ParseWelcome(wire.KindFullSync, with()); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("a full sync without a reason: %v, want ErrMalformed", err)
	}
	// A reason or a code of a later version is for the caller to judge.
	w, err := wire.ParseWelcome(wire.KindFullSync, with(field(wire.FieldReason, []byte("whim")...)))
	mustEqual(t, err, nil)
	mustEqual(t, w.Reason, wire.Reason("whim"))
}

func TestSessionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u64 := rapid.Uint64()
		hb := wire.Heartbeat{
			Position: drawPosition(t), Clock: rapid.Int64().Draw(t, "clock"), Digest: wire.Digest(u64.Draw(t, "digest")),
			Sent: u64.Draw(t, "sent"), Pending: u64.Draw(t, "pending"),
		}
		gotHB, err := wire.ParseHeartbeat(append(payload(t, wire.AppendHeartbeat(nil, hb), wire.KindHeartbeat), "later"...))
		mustEqual(t, err, nil)
		mustEqual(t, gotHB, hb)

		var ack wire.Ack
		ack.Received = u64.Draw(t, "received")
		ack.Applied = rapid.Uint64Range(0, ack.Received).Draw(t, "applied")
		ack.Durable = rapid.Uint64Range(0, ack.Applied).Draw(t, "durable")
		gotAck, err := wire.ParseAck(append(payload(t, wire.AppendAck(nil, ack), wire.KindAck), "later"...))
		mustEqual(t, err, nil)
		mustEqual(t, gotAck, ack)

		m := wire.Manifest{Snapshot: drawID(t, "snapshot"), Files: []wire.File{}}
		var total uint64
		for i, name := range rapid.SliceOfDistinct(rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9._-]{0,8}(/[a-zA-Z0-9][a-zA-Z0-9._-]{0,8})?`), rapid.ID).Draw(t, "names") {
			m.Files = append(m.Files, wire.File{Name: name, Size: uint64(i), Sum: drawID(t, "sum")})
			total += uint64(i)
		}
		mustEqual(t, m.Bytes(), total)
		gotManifest, err := wire.ParseManifest(payload(t, wire.AppendManifest(nil, m), wire.KindManifest))
		mustEqual(t, err, nil)
		mustEqual(t, gotManifest, m)

		f := wire.Fetch{Snapshot: m.Snapshot, Wants: []wire.Want{}}
		for range rapid.IntRange(0, 5).Draw(t, "wants") {
			f.Wants = append(f.Wants, wire.Want{File: rapid.Uint32().Draw(t, "file"), From: u64.Draw(t, "from")})
		}
		gotFetch, err := wire.ParseFetch(payload(t, wire.AppendFetch(nil, f), wire.KindFetch))
		mustEqual(t, err, nil)
		mustEqual(t, gotFetch, f)

		c := wire.Chunk{File: rapid.Uint32().Draw(t, "file"), From: u64.Draw(t, "from"), Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data")}
		gotChunk, err := wire.ParseChunk(payload(t, wire.AppendChunk(nil, c), wire.KindChunk))
		mustEqual(t, err, nil)
		mustEqual(t, gotChunk, c)
	})
}

func TestSessionRefuses(t *testing.T) {
	malformed := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	_, err := wire.ParseHeartbeat(make([]byte, 55))
	malformed("a short heartbeat", err)
	_, err = wire.ParseAck(make([]byte, 23))
	malformed("a short ack", err)
	_, err = wire.ParseAck(payload(t, wire.AppendAck(nil, wire.Ack{Received: 1, Applied: 2}), wire.KindAck))
	malformed("applied before received", err)
	_, err = wire.ParseAck(payload(t, wire.AppendAck(nil, wire.Ack{Received: 2, Applied: 1, Durable: 2}), wire.KindAck))
	malformed("durable before applied", err)
	_, err = wire.ParseSnapshotEnd(make([]byte, 15))
	malformed("a short snapshot-end", err)
	_, err = wire.ParseChunk(make([]byte, 11))
	malformed("a short chunk", err)
	_, err = wire.ParseChunk(make([]byte, 12+wire.MaxChunk+1))
	malformed("a long chunk", err)
	_, err = wire.ParseChunk(make([]byte, 12+wire.MaxChunk))
	mustEqual(t, err, nil)
	_, err = wire.ParseFetch(make([]byte, 19))
	malformed("a short fetch", err)
	_, err = wire.ParseFetch(append(make([]byte, 16), 0xff, 0xff, 0xff, 0xff))
	malformed("a fetch of 2^32-1 files", err)
	_, err = wire.ParseManifest(append(make([]byte, 16), 0xff, 0xff, 0xff, 0xff))
	malformed("a manifest of 2^32-1 files", err)

	manifest := func(names ...string) []byte {
		m := wire.Manifest{}
		for _, n := range names {
			m.Files = append(m.Files, wire.File{Name: n})
		}
		return payload(t, wire.AppendManifest(nil, m), wire.KindManifest)
	}
	for _, name := range []string{"", "/", "/etc/passwd", "..", "../x", "a/../x", "a/..", ".", "./a", "a//b", "a/", "a\\b", "a\x00b", "a\nb", "a\x7fb"} {
		_, err := wire.ParseManifest(manifest("000001.sst", name))
		malformed("a file named "+name, err)
	}
	_, err = wire.ParseManifest(manifest("a", "b", "a"))
	malformed("two files of one name", err)
	whole := manifest("a", "b")
	_, err = wire.ParseManifest(append(whole[:len(whole):len(whole)], 0))
	malformed("bytes behind a manifest", err)
	for n := range whole {
		_, err := wire.ParseManifest(whole[:n])
		malformed("a cut manifest", err)
	}
}

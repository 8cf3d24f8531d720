package wire_test

import (
	"github.com/understudy-kv/understudy/wire"
)

// A vector is one frame whose bytes are pinned in testdata/vectors and shown in docs/protocol.md. build makes it with
// the package's own functions; parse reads it back with them and compares; the annotation in the file is made by
// annotate_test.go, which is a second, independent reading of docs/protocol.md.
type vector struct {
	name  string
	about string
	build func(tb) []byte
	parse func(tb, wire.Frame)
}

var (
	genA    = wire.Generation{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}
	genB    = wire.Generation{0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf}
	idOne   = wire.ID{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x46, 0x17, 0x98, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}
	idTwo   = wire.ID{0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x46, 0x27, 0x98, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f}
	idThree = wire.ID{0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x46, 0x37, 0x98, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f}

	lineageAB = wire.Lineage{{Generation: genA, First: 0}, {Generation: genB, First: 1000}}

	// The microsecond 2026-11-22T12:00:00Z.
	noon int64 = 1795348800000000
)

// vectors lists every frame that docs/protocol.md shows. TestEveryConstantHasAVector holds it to the exported constants.
func vectors() []vector {
	vs := []vector{
		mutationsVector("mutations", "Two mutations at the offsets 1000 and 1001: a put and a delete together, then a delete of a range.",
			1000, func(b *wire.Builder) {
				b.Put([]byte("key"), []byte("value"))
				b.Delete([]byte("old"))
				b.End()
				b.DeleteRange([]byte("a"), []byte("b"))
				b.End()
			}),
		mutationsVector("mutations-empty", "A mutation that changes nothing still takes its offset.",
			0, func(b *wire.Builder) { b.End() }),
		mutationsVector("mutations-long", "A length of 128 or more takes a second byte: seven bits a byte, the lowest first.",
			7, func(b *wire.Builder) {
				b.PutParts([]byte("k"), make([]byte, 100), make([]byte, 100))
				b.End()
			}),
		roundTrip("heartbeat", "The primary is at offset 1010 and has sent this session everything before 1002.",
			wire.Heartbeat{
				Position: wire.Position{Generation: genB, Offset: 1010}, Clock: noon, Digest: wire.Digest(0).Add(0xdeadbeef),
				Sent: 1002, Pending: 512,
			}, wire.AppendHeartbeat, wire.ParseHeartbeat),
		roundTrip("ack", "Received up to 1002, applied up to 1001, and 1000 would survive power loss.",
			wire.Ack{Received: 1002, Applied: 1001, Durable: 1000}, wire.AppendAck, wire.ParseAck),
		roundTrip("hello-empty", "A replica without data, a cluster name or credentials. Fields that say nothing are left out, numbers are not.",
			wire.Hello{Version: wire.Version, Replica: idOne, Nonce: idTwo, Node: idThree},
			wire.AppendHello, wire.ParseHello),
		roundTrip("hello", "Every field that a hello can have.",
			wire.Hello{
				Version: wire.Version, Capabilities: 1<<63 | wire.CapDifference, Replica: idOne, Nonce: idTwo, Node: idThree, Announce: "10.0.0.7:6381", AnnounceBase: "10.0.0.7:16381",
				Cluster: "orders", User: "mirror", Password: []byte("secret"), Shard: 1, Shards: 4, Format: 24,
				Position: wire.Position{Generation: genB, Offset: 1001}, Lineage: lineageAB, Snapshot: idTwo,
				Settles: wire.Position{Generation: genB, Offset: 1005},
			}, wire.AppendHello, wire.ParseHello),
		roundTrip("resume", "The stream goes on at the position that the replica asked for.",
			wire.Welcome{
				Version: wire.Version, Node: idTwo, Shard: 1, Shards: 4, Format: 24,
				Position: wire.Position{Generation: genB, Offset: 1001}, Next: 1010, Lineage: lineageAB,
				Path: []wire.ID{idThree, idTwo}, Announce: "10.0.0.5:6380",
			}, wire.AppendWelcome, func(b []byte) (wire.Welcome, error) { return wire.ParseWelcome(wire.KindResume, b) }),
		roundTrip("rewind", "The replica has mutations from 1000 on that this primary does not have: it is to undo them.",
			wire.Welcome{
				Version: wire.Version, Node: idTwo, Shard: 1, Shards: 4, Format: 24, Rewind: true,
				Position: wire.Position{Generation: genA, Offset: 1000}, Next: 1010, Lineage: lineageAB, Path: []wire.ID{idTwo},
			}, wire.AppendWelcome, func(b []byte) (wire.Welcome, error) { return wire.ParseWelcome(wire.KindRewind, b) }),
		roundTrip("want-keys", "Two of the keys that the surplus touched; more follow.",
			wire.WantKeys{Keys: [][]byte{[]byte("key"), []byte("old")}}, wire.AppendWantKeys, wire.ParseWantKeys),
		roundTrip("want-keys-last", "The last frame of the list.",
			wire.WantKeys{Last: true, Keys: [][]byte{[]byte("new")}}, wire.AppendWantKeys, wire.ParseWantKeys),
		{
			name: "values", about: "What the primary has: key is value, and there is no old.",
			build: func(t tb) []byte {
				var b wire.Builder
				b.Reset()
				b.Put([]byte("key"), []byte("value"))
				b.Delete([]byte("old"))
				raw, err := b.FinishValues()
				mustEqual(t, err, nil)
				return raw
			},
			parse: func(t tb, f wire.Frame) {
				mustEqual(t, f.CheckValues(), nil)
				raw, err := rebuildValues(f)
				mustEqual(t, err, nil)
				mustEqual(t, raw, f.Raw)
			},
		},
		roundTrip("values-end", "All values were read at 1007.",
			wire.Position{Generation: genB, Offset: 1007}, wire.AppendValuesEnd, wire.ParseValuesEnd),
		roundTrip("takeover", "Every field that a takeover can have, but for a probe's.",
			wire.Takeover{
				ID: idThree, Cancel: true, Node: idTwo, Cluster: "orders", User: "mirror", Password: []byte("secret"),
				Announce: "10.0.0.1:6379", AnnounceBase: "10.0.0.1:16379",
				Positions: []wire.Position{{Generation: genB, Offset: 1010}, {Generation: genA, Offset: 7}},
			}, wire.AppendTakeover, wire.ParseTakeover),
		roundTrip("takeover-probe", "Would the receiver take over?",
			wire.Takeover{ID: idThree, Probe: true, Node: idTwo, Positions: []wire.Position{{Generation: genB, Offset: 1010}}},
			wire.AppendTakeover, wire.ParseTakeover),
		roundTrip("manifest", "Two files. The sums are the 128-bit xxh3 of the contents.",
			wire.Manifest{Snapshot: idThree, Files: []wire.File{
				{Name: "000004.sst", Size: 1 << 20, Sum: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
				{Name: "sub/MANIFEST-000001", Size: 123, Sum: [16]byte{16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}},
			}}, wire.AppendManifest, wire.ParseManifest),
		roundTrip("fetch", "The whole of file 1, and file 0 from byte 65536 on.",
			wire.Fetch{Snapshot: idThree, Wants: []wire.Want{{File: 1}, {File: 0, From: 65536}}}, wire.AppendFetch, wire.ParseFetch),
		roundTrip("fetch-nothing", "The replica has every file.",
			wire.Fetch{Snapshot: idThree, Wants: []wire.Want{}}, wire.AppendFetch, wire.ParseFetch),
		roundTrip("chunk", "Five bytes of file 0.",
			wire.Chunk{File: 0, From: 65536, Data: []byte("bytes")}, wire.AppendChunk, wire.ParseChunk),
		roundTrip("snapshot-end", "Everything that was asked for has been sent.",
			idThree, wire.AppendSnapshotEnd, wire.ParseSnapshotEnd),
	}
	vs = append(vs, vector{
		name: "keepalive", about: "A replica that loads a snapshot has nothing to acknowledge.",
		build: func(tb) []byte { return wire.AppendControl(nil, wire.KindKeepalive, nil) },
		parse: func(t tb, f wire.Frame) { mustEqual(t, len(f.Payload), 0) },
	})
	vs = append(vs, roundTrip("ask", "A client waits for everything before 1010.", uint64(1010), wire.AppendAsk, wire.ParseAsk))
	for _, r := range []wire.Reason{
		wire.ReasonEmpty, wire.ReasonEvicted, wire.ReasonUnknownGeneration, wire.ReasonDiverged, wire.ReasonShardLayout,
	} {
		vs = append(vs, roundTrip("fullsync-"+string(r), "",
			wire.Welcome{
				Version: wire.Version, Node: idTwo, Shard: 1, Shards: 4, Format: 24,
				Position: wire.Position{Generation: genB, Offset: 1005}, Next: 1010, Lineage: lineageAB, Reason: r, Snapshot: idThree,
			}, wire.AppendWelcome, func(b []byte) (wire.Welcome, error) { return wire.ParseWelcome(wire.KindFullSync, b) }))
	}
	for _, c := range []struct {
		outcome wire.Outcome
		text    string
	}{
		{wire.OutcomeDone, ""}, {wire.OutcomeRefused, "shard 0 is at 1009, not at 1010"}, {wire.OutcomeVoid, ""},
		{wire.OutcomeReady, ""},
	} {
		vs = append(vs, roundTrip("takeover-reply-"+string(c.outcome), "",
			wire.TakeoverReply{ID: idThree, Outcome: c.outcome, Text: c.text, Positions: []wire.Position{{Generation: genB, Offset: 1009}}},
			wire.AppendTakeoverReply, wire.ParseTakeoverReply))
	}
	for _, c := range []struct {
		code wire.Code
		text string
	}{
		{wire.CodeVersion, "this primary speaks version 1"},
		{wire.CodeAuth, "unknown user"},
		{wire.CodeCluster, "this primary is of the cluster \"orders\""},
		{wire.CodeLoop, "this node is the replica itself"},
		{wire.CodeShard, "this port serves shard 0"},
		{wire.CodeSlotTaken, "held by 10.0.0.7:40112"},
		{wire.CodeBusy, "64 replicas are attached"},
		{wire.CodeLoading, "still starting"},
		{wire.CodeBehind, "this node follows another one and is at 990"},
	} {
		vs = append(vs, refusal("refuse-", wire.KindRefuse, c.code, c.text, 4))
	}
	for _, c := range []struct {
		code wire.Code
		text string
	}{
		{wire.CodeShutdown, "stopping"},
		{wire.CodeProtocol, "an ack went backwards"},
		{wire.CodeCorrupt, "frame checksum mismatch at offset 1001"},
		{wire.CodeTimeout, "nothing heard for 10s"},
		{wire.CodeEvicted, "offset 1001 is gone, the oldest is 5000"},
		{wire.CodeReplaced, "a newer session of the same process"},
		{wire.CodeDropped, "REPL.SLOT DROP"},
		{wire.CodeFailed, "log: no space left on device"},
		{wire.CodeRole, "this node was promoted"},
	} {
		vs = append(vs, refusal("bye-", wire.KindBye, c.code, c.text, 0))
	}
	return vs
}

func refusal(prefix string, kind wire.Kind, code wire.Code, text string, shards uint32) vector {
	return roundTrip(prefix+string(code), "",
		wire.Refusal{Version: wire.Version, Code: code, Text: text, Shards: shards},
		func(dst []byte, r wire.Refusal) []byte { return wire.AppendRefusal(dst, kind, r) },
		func(b []byte) (wire.Refusal, error) { return wire.ParseRefusal(kind, b) })
}

func roundTrip[T any](name, about string, v T, build func([]byte, T) []byte, parse func([]byte) (T, error)) vector {
	return vector{
		name: name, about: about,
		build: func(tb) []byte { return build(nil, v) },
		parse: func(t tb, f wire.Frame) {
			got, err := parse(f.Payload)
			mustEqual(t, err, nil)
			mustEqual(t, got, v)
		},
	}
}

func mutationsVector(name, about string, first uint64, fill func(*wire.Builder)) vector {
	return vector{
		name: name, about: about,
		build: func(t tb) []byte {
			var b wire.Builder
			b.Reset()
			fill(&b)
			raw, err := b.Finish(first, noon)
			mustEqual(t, err, nil)
			return raw
		},
		parse: func(t tb, f wire.Frame) {
			mustEqual(t, f.Check(), nil)
			mustEqual(t, f.First, first)
			mustEqual(t, f.Commit, noon)
			var again wire.Builder
			again.Reset()
			for ops := f.Ops(); ops.Next(); {
				replay(&again, ops.Op())
			}
			raw, err := again.Finish(f.First, f.Commit)
			mustEqual(t, err, nil)
			mustEqual(t, raw, f.Raw)
		},
	}
}

func rebuildValues(f wire.Frame) ([]byte, error) {
	var b wire.Builder
	b.Reset()
	for ops := f.Ops(); ops.Next(); {
		replay(&b, ops.Op())
	}
	return b.FinishValues()
}

func replay(b *wire.Builder, op wire.Op) {
	switch op.Kind {
	case wire.OpPut:
		b.Put(op.Key, op.Value)
	case wire.OpDelete:
		b.Delete(op.Key)
	case wire.OpDeleteRange:
		b.DeleteRange(op.Key, op.Value)
	case wire.OpEnd:
		b.End()
	}
}

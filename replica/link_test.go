package replica

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/understudy-kv/understudy/wire"
)

// TestLink plays the transcripts in testdata: a file a story, an event a command, the actions its output. Rewrite them
// with go test -rewrite.
//
//	10s tick heard=9s      the time, the event, its fields
//
// Generations are g1, g2, ...; positions g1:10; lineages g1@0,g2@10; snapshots s1; files size*index.
func TestLink(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var l *Link
		var digest wire.Digest
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "link" {
				o := LinkOptions{Shards: 4, Jitter: func() float64 { return 0 }}
				for _, a := range d.CmdArgs {
					switch a.Key {
					case "shards":
						o.Shards = uint32(number(t, a.Vals[0]))
					case "learns":
						o.Learns = true
					case "accept-empty-primary":
						o.AcceptEmptyPrimary = true
					case "format":
						o.Format = uint32(number(t, a.Vals[0]))
					}
				}
				l = NewLink(o)
				return ""
			}
			if d.Cmd == "figures" {
				return figureText(l.Figures(0))
			}
			var out strings.Builder
			for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
				ev := parseEvent(t, line, &digest)
				for _, a := range l.Step(ev) {
					fmt.Fprintf(&out, "%s\n", actionText(a))
				}
				if err := l.check(); err != nil {
					t.Fatalf("%s: %s: %v", d.Pos, line, err)
				}
			}
			fmt.Fprintf(&out, "-- %s\n", l.state)
			return out.String()
		})
	})
}

func number(t *testing.T, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func generation(t *testing.T, s string) wire.Generation {
	return wire.Generation{0: byte(number(t, strings.TrimPrefix(s, "g")))}
}

func position(t *testing.T, s string) wire.Position {
	g, offset, ok := strings.Cut(s, ":")
	if !ok {
		return wire.Position{}
	}
	return wire.Position{Generation: generation(t, g), Offset: number(t, offset)}
}

func lineage(t *testing.T, s string) (l wire.Lineage) {
	for _, e := range strings.Split(s, ",") {
		g, first, _ := strings.Cut(e, "@")
		l = append(l, wire.Epoch{Generation: generation(t, g), First: number(t, first)})
	}
	return l
}

func wants(t *testing.T, s string) (ws []wire.Want) {
	for _, w := range strings.Split(s, ",") {
		if file, from, ok := strings.Cut(w, "@"); ok {
			ws = append(ws, wire.Want{File: uint32(number(t, file)), From: number(t, from)})
		}
	}
	return ws
}

var namedErrors = map[string]error{
	"eof": io.EOF, "refused": fmt.Errorf("connect: %w", syscall.ECONNREFUSED), "timeout": errors.New("i/o timeout"), "crc": fmt.Errorf("%w: 1, want 2", wire.ErrCRC),
	"unknown": fmt.Errorf("%w: frame kind 99", wire.ErrUnknown), "full": errors.New("no space left on device"),
	"shard": fmt.Errorf("%w: mutations [12, 14): no space left on device", ErrShard), "stuck": ErrStuck,
	"load": errors.New("manifest missing"), "cannot": fmt.Errorf("%w: a range of keys was deleted at 46", ErrCannotUndo), "surplus": fmt.Errorf("%w: saving what the primary does not have: no space left on device", ErrLoad),
}

func parseEvent(t *testing.T, line string, digest *wire.Digest) Event {
	words := strings.Fields(line)
	at, err := time.ParseDuration(words[0])
	if err != nil {
		t.Fatal(err)
	}
	ev := Event{At: at}
	for k, name := range eventNames {
		if name == words[1] {
			ev.Kind = EventKind(k)
		}
	}
	w := &wire.Welcome{Version: wire.Version, Shards: 4}
	h := &wire.Heartbeat{Digest: *digest}
	r := &wire.Refusal{Text: "because"}
	m := &wire.Manifest{}
	for _, word := range words[2:] {
		k, v, _ := strings.Cut(word, "=")
		switch k {
		case "err":
			if ev.Err = namedErrors[v]; ev.Err == nil {
				t.Fatalf("no error named %q", v)
			}
		case "at":
			ev.Position = position(t, v)
			w.Position, h.Position = ev.Position, ev.Position
		case "lineage":
			ev.Lineage = lineage(t, v)
			w.Lineage = ev.Lineage
		case "next":
			w.Next, ev.Next = number(t, v), number(t, v)
		case "reason":
			w.Reason = wire.Reason(v)
		case "shards":
			w.Shards = uint32(number(t, v))
		case "version":
			w.Version = uint16(number(t, v))
		case "format":
			w.Format = uint32(number(t, v))
		case "snapshot":
			ev.Snapshot = wire.ID{byte(number(t, v[1:]))}
			w.Snapshot, m.Snapshot = ev.Snapshot, ev.Snapshot
		case "code":
			r.Code = wire.Code(v)
		case "files":
			for i, size := range strings.Split(v, ",") {
				m.Files = append(m.Files, wire.File{Name: fmt.Sprintf("file-%d", i), Size: number(t, size)})
			}
		case "wants":
			ev.Wants = wants(t, v)
		case "first":
			ev.First = number(t, v)
		case "file":
			ev.File = uint32(number(t, v))
		case "from":
			ev.From = number(t, v)
		case "size":
			ev.Size = int(number(t, v))
		case "sent":
			h.Sent = number(t, v)
		case "digest":
			h.Digest++ // digest=bad
		case "applied":
			ev.Applied = number(t, v)
		case "durable":
			ev.Durable = number(t, v)
		case "heard":
			ev.Heard, err = time.ParseDuration(v)
		case "lost":
			ev.Lost, err = time.ParseDuration(v)
		case "paused":
			ev.Paused = true
		case "resumable":
			ev.Resumable = true
		case "settles":
			ev.Settles = position(t, v)
		case "rewinds":
			ev.Rewinds = true
		case "rewind":
			w.Rewind = true
		default:
			t.Fatalf("field %q", k)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	switch ev.Kind {
	case EventWelcome:
		ev.Welcome, *digest = w, 0
	case EventHeartbeat:
		ev.Heartbeat = h
	case EventRefused, EventBye:
		ev.Refusal = r
	case EventManifest:
		ev.Manifest = m
	case EventFrame:
		ev.CRC = uint32(ev.First) + 7
		*digest = digest.Add(ev.CRC)
	}
	return ev
}

func shortPosition(p wire.Position) string {
	if p.IsZero() {
		return "none"
	}
	return fmt.Sprintf("g%d:%d", p.Generation[0], p.Offset)
}

func shortLineage(l wire.Lineage) string {
	var s []string
	for _, e := range l {
		s = append(s, fmt.Sprintf("g%d@%d", e.Generation[0], e.First))
	}
	return strings.Join(s, ",")
}

func actionText(a Action) string {
	switch a.Kind {
	case ActionDial:
		return "dial"
	case ActionWait:
		return fmt.Sprintf("wait %s", a.Wait)
	case ActionQuit:
		return "quit"
	case ActionLayout:
		return fmt.Sprintf("layout shards=%d", a.Shards)
	case ActionPlace:
		return fmt.Sprintf("place below=%d", len(a.Welcome.Path))
	case ActionAdopt:
		return "adopt " + shortLineage(a.Lineage)
	case ActionStage:
		return fmt.Sprintf("stage files=%d", len(a.Manifest.Files))
	case ActionStore:
		return "store"
	case ActionVerify:
		return "verify"
	case ActionDiscard:
		return "discard"
	case ActionSurplus:
		return fmt.Sprintf("surplus from=%d", a.From)
	case ActionInstall:
		return fmt.Sprintf("install at=%s lineage=%s", shortPosition(a.Position), shortLineage(a.Lineage))
	case ActionHello:
		text := fmt.Sprintf("hello at=%s lineage=%s snapshot=s%d", shortPosition(a.Position), shortLineage(a.Lineage), a.Snapshot[0])
		if !a.Settles.IsZero() {
			text += " settles=" + shortPosition(a.Settles)
		}
		if a.Rewinds {
			text += " rewinds"
		}
		return text
	case ActionList:
		return fmt.Sprintf("list from=%d", a.From)
	case ActionKeep:
		return "keep"
	case ActionRewind:
		return fmt.Sprintf("rewind to=%s settles=%s lineage=%s", shortPosition(a.Position), shortPosition(a.Settles), shortLineage(a.Lineage))
	case ActionFetch:
		var ws []string
		for _, w := range a.Wants {
			ws = append(ws, fmt.Sprintf("%d@%d", w.File, w.From))
		}
		return strings.TrimSpace("fetch " + strings.Join(ws, ","))
	case ActionApply:
		return "apply"
	case ActionAck:
		return fmt.Sprintf("ack %d %d %d", a.Ack.Received, a.Ack.Applied, a.Ack.Durable)
	case ActionAckSoon:
		return fmt.Sprint("ack soon ", a.Wait)
	case ActionKeepalive:
		return "keepalive"
	case ActionClose:
		text := "close"
		if a.Code != "" {
			text += fmt.Sprintf(" bye=%s %q", a.Code, a.Text)
		}
		if a.Drop {
			text += " drop"
		}
		return text
	case ActionLog:
		return fmt.Sprintf("log %s: %s", a.Level, a.Text)
	}
	return fmt.Sprint(a.Kind)
}

func figureText(f Figures) string {
	var out strings.Builder
	if f.Rewinds > 0 || f.Owes {
		fmt.Fprintf(&out, "rewinds=%d owes=%v\n", f.Rewinds, f.Owes)
	}
	fmt.Fprintf(&out, "resumes=%d fullsyncs=%v refusals=%v digest-mismatches=%d\n", f.Resumes, f.FullSyncs, f.Refusals, f.DigestMismatches)
	fmt.Fprintf(&out, "frames=%d mutations=%d snapshot-bytes=%d last=%q refusal=%q\n", f.Frames, f.Mutations, f.SnapshotBytes, f.LastResync, f.LastRefusal)
	fmt.Fprintf(&out, "error=%v\n", f.LastError)
	return out.String()
}

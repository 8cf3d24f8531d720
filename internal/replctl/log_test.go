package replctl

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/wire"
)

const commitMicros = 1_795_000_000_123_456

// writeLog makes a log of a few segments, as a shard's owner would, and leaves it open.
func writeLog(t *testing.T, dir string) *backlog.Log {
	t.Helper()
	l, err := backlog.Create(backlog.Options{FS: vfs.Default, Dir: dir, SegmentBytes: 64 << 10, Generation: func(uint64) wire.Generation { return wire.Generation{7} }}, 100)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var b wire.Builder
	write := func(ops ...func()) {
		t.Helper()
		b.Reset()
		for _, op := range ops {
			op()
			b.End()
		}
		first := l.Next()
		raw, err := b.Finish(first, commitMicros)
		if err == nil {
			err = l.Append(raw, first, first+uint64(b.Count()))
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Publish(l.Next())
	}
	key := func(s string) []byte { return engine.AppendDataKey(nil, []byte(s)) }
	record := func(value string, deadline int64) []byte {
		return engine.AppendRecord(nil, engine.Record{Type: engine.TypeString, Value: []byte(value), Deadline: deadline})
	}
	write(func() { b.Put(key("greeting"), record("hello", 0)) }, func() { b.Delete(key("farewell")) })
	write(func() {
		b.Put(key("session"), record("in", 1_795_000_600_000))
		b.Put(engine.AppendIndexKey(nil, 1_795_000_600_000, []byte("session")), nil)
	})
	write(func() { b.DeleteRange(engine.KeyspaceBounds()) })
	write(func() { b.Put(key("binary\xff"), record("\x00\x01", 0)) })
	write(func() { b.Put([]byte("somebody else's key"), []byte("and value")) })
	write(func() { b.Put(key("long"), record(strings.Repeat("long ", 20_000), 0)) })
	write(func() { b.Put(key("last"), record("one", 0)) })
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLogPrintsFramesOfALiveLog(t *testing.T) {
	dir := t.TempDir()
	writeLog(t, dir)
	code, stdout, stderr := run(t, "log", dir)
	if code != 0 || stderr != "" {
		t.Fatalf("status %d, %s", code, stderr)
	}
	golden(t, "log.txt", stdout)
}

func TestLogJSONHasEveryValueWhole(t *testing.T) {
	dir := t.TempDir()
	writeLog(t, dir)
	code, stdout, stderr := run(t, "log", dir, "--json", "--from", "106")
	if code != 0 {
		t.Fatalf("status %d, %s", code, stderr)
	}
	var frames []frameText
	for d := json.NewDecoder(strings.NewReader(stdout)); d.More(); {
		var f frameText
		if err := d.Decode(&f); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
	}
	if len(frames) != 2 || frames[0].First != 106 || frames[0].Mutations[0][0].Key != "long" || frames[0].Mutations[0][0].Value != strings.Repeat("long ", 20_000) {
		t.Errorf("%d frames: %.300s", len(frames), stdout)
	}
	if f := frames[1]; f.Mutations[0][0].Key != "last" || f.Commit != "2026-11-18T11:06:40.123456Z" {
		t.Errorf("%+v", f)
	}
}

// A byte that is flipped anywhere in a frame is found, and named to the byte where the frame begins.
func TestLogCheckHasNoJSON(t *testing.T) {
	code, stdout, stderr := run(t, "log", t.TempDir(), "--check", "--json")
	if code != cli.Usage || stdout != "" || !strings.Contains(stderr, "give one of the two") {
		t.Errorf("status %d, %q, %q", code, stdout, stderr)
	}
}

func TestLogFindsDamage(t *testing.T) {
	for _, flip := range []struct {
		at, frame int64
		next      uint64
	}{{wire.HeaderSize + 3, 0, 100}, {4, 0, 100}, {40, 0, 100}} {
		dir := t.TempDir()
		l := writeLog(t, dir)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
		if err != nil || len(segments) < 2 {
			t.Fatalf("%v, %v", segments, err)
		}
		b, err := os.ReadFile(segments[0])
		if err != nil {
			t.Fatal(err)
		}
		b[backlog.SegmentHeaderSize+flip.at] ^= 1
		if err := os.WriteFile(segments[0], b, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, check := range []string{"--check", "--json"} {
			code, stdout, stderr := run(t, "log", dir, check)
			want := fmt.Sprintf("%s is damaged at byte %d (offset %d)", segments[0], backlog.SegmentHeaderSize+flip.frame, flip.next)
			if code != 1 || !strings.Contains(stderr, want) {
				t.Errorf("%s: status %d, %q, want 1 and %q", check, code, stderr, want)
			}
			if check == "--check" && !strings.Contains(stdout, "DAMAGED") {
				t.Errorf("%q", stdout)
			}
		}
	}
}

func TestLogTakesATornTailForWhatItIs(t *testing.T) {
	dir := t.TempDir()
	l := writeLog(t, dir)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	last := segments[len(segments)-1]
	f, err := os.OpenFile(last, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte{0x55, 0xd1, 1}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	code, stdout, stderr := run(t, "log", dir, "--check")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "shard 0: offsets [100, 108)") || !strings.Contains(stdout, "3 B behind them are an unfinished frame") {
		t.Errorf("status %d, %q, %q", code, stdout, stderr)
	}
}

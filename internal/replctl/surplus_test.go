package replctl

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/wire"
)

// The deadlines of tests: one that has passed, and one that will not soon.
const (
	past   = 1_000_000_000_000
	future = 4_000_000_000_000
)

// shardLog is a real log whose frames are saved as surplus, as a node does it.
type shardLog struct {
	t          *testing.T
	log        *backlog.Log
	shard      int
	generation wire.Generation
	commit     int64
}

func newShardLog(t *testing.T, shard int, first uint64) *shardLog {
	t.Helper()
	s := &shardLog{t: t, shard: shard, generation: wire.Generation{byte(shard + 1)}, commit: commitMicros}
	l, err := backlog.Create(backlog.Options{FS: vfs.Default, Dir: t.TempDir(), Shard: uint32(shard), Generation: func(uint64) wire.Generation { return s.generation }}, first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s.log = l
	return s
}

// write appends a frame: each function is a mutation.
func (s *shardLog) write(mutations ...func(b *wire.Builder)) {
	s.t.Helper()
	var b wire.Builder
	b.Reset()
	for _, m := range mutations {
		m(&b)
		b.End()
	}
	first := s.log.Next()
	s.commit += 1_000_000
	raw, err := b.Finish(first, s.commit)
	if err == nil {
		err = s.log.Append(raw, first, first+uint64(b.Count()))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.log.Publish(s.log.Next())
}

// save saves everything from an offset on in a node's directory, and returns the file.
func (s *shardLog) save(dir string, first uint64) string {
	s.t.Helper()
	r, err := s.log.NewReader(first)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	var b []byte
	for next := first; next < s.log.Next(); {
		run, err := r.Next(context.Background(), 1<<20)
		if err != nil {
			s.t.Fatal(err)
		}
		b, next = append(b, run.Bytes...), run.Next
	}
	return saveSurplus(s.t, dir, s.shard, s.generation, first, s.log.Next(), b)
}

func saveSurplus(t *testing.T, dir string, shard int, g wire.Generation, first, next uint64, frames []byte) string {
	t.Helper()
	path := filepath.Join(dir, "surplus", fmt.Sprintf("shard-%03d-%s-%d-%d.frames", shard, g, first, next))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, frames, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func putKey(key, value string, deadline int64) func(*wire.Builder) {
	return func(b *wire.Builder) {
		b.Put(engine.AppendDataKey(nil, []byte(key)), engine.AppendRecord(nil, engine.Record{Type: engine.TypeString, Value: []byte(value), Deadline: deadline}))
		if deadline != 0 {
			b.Put(engine.AppendIndexKey(nil, deadline, []byte(key)), nil)
		}
	}
}

func deleteKeys(keys ...string) func(*wire.Builder) {
	return func(b *wire.Builder) {
		for _, k := range keys {
			b.Delete(engine.AppendDataKey(nil, []byte(k)))
		}
	}
}

func flushShard(b *wire.Builder) { b.DeleteRange(engine.KeyspaceBounds()) }

// twoShards saves a surplus with one of everything: shard 0 from offset 10 on, shard 1 from 20 on.
func twoShards(t *testing.T) (dir string, files []string) {
	t.Helper()
	dir = t.TempDir()
	s := newShardLog(t, 0, 8)
	s.write(putKey("not", "surplus", 0), putKey("nor", "this", 0))
	s.write(putKey("greeting", "hello", 0), putKey("greeting", "hello \"world\"\r\n", 0))
	s.write(putKey("session", "in", future), putKey("over", "out", past))
	s.write(func(b *wire.Builder) { putKey("one", "1", 0)(b); putKey("two", "2", 0)(b); deleteKeys("three")(b) })
	s.write(putKey("binary\xff\x00", "\x00\x01é", 0))
	files = append(files, s.save(dir, 10))
	s = newShardLog(t, 1, 20)
	s.write(putKey("flushed", "away", 0), flushShard, putKey("long", strings.Repeat("long ", 2000), 0))
	s.write(func(b *wire.Builder) { b.Put([]byte("somebody else's key"), []byte("and value")) })
	s.write(func(b *wire.Builder) { b.Delete(engine.AppendIndexKey(nil, past, []byte("gone"))) }, deleteKeys("gone"))
	return dir, append(files, s.save(dir, 20))
}

func TestSurplusListsFiles(t *testing.T) {
	dir, _ := twoShards(t)
	for _, d := range []string{dir, filepath.Join(dir, "surplus")} {
		code, stdout, stderr := run(t, "surplus", "list", "--data-dir", d)
		if code != 0 || stderr != "" {
			t.Errorf("status %d, %s", code, stderr)
		}
		golden(t, "surplus_list.txt", stdout)
	}
	code, stdout, stderr := run(t, "surplus", "list", "--data-dir", dir, "--json", "--shard", "1")
	var s surplusSummary
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != 0 {
		t.Fatalf("status %d, %v in %s%s", code, err, stdout, stderr)
	}
	if s.Shard != 1 || s.First != 20 || s.Next != 26 || s.Mutations != 6 || s.Keys != 3 || s.Error != "" {
		t.Errorf("%+v", s)
	}
}

func TestSurplusShowsCommands(t *testing.T) {
	dir, files := twoShards(t)
	code, stdout, stderr := run(t, "surplus", "show", "--data-dir", dir)
	if code != 0 || stderr != "" {
		t.Errorf("status %d, %s", code, stderr)
	}
	golden(t, "surplus_show.txt", stdout)
	code, stdout, stderr = run(t, "surplus", "show", "--keys", files[1], files[0])
	if code != 0 || stderr != "" {
		t.Errorf("status %d, %s", code, stderr)
	}
	golden(t, "surplus_keys.txt", stdout)
	// A file's name alone is looked for in the node's folder.
	code, stdout, stderr = run(t, "surplus", "show", "--data-dir", dir, "--full", filepath.Base(files[1]))
	if code != 0 || stderr != "" || !strings.Contains(stdout, "SET long \""+strings.Repeat("long ", 2000)+"\"\n") || strings.Contains(stdout, "greeting") {
		t.Errorf("status %d, %s%.500s", code, stderr, stdout)
	}
	code, stdout, _ = run(t, "surplus", "show", "--data-dir", dir, "--keys", "--json", "--shard", "0")
	var k keyText
	if err := json.NewDecoder(strings.NewReader(stdout)).Decode(&k); err != nil || code != 0 || k.Key != "62696e617279ff00" || !k.Hex || k.First != 15 {
		t.Errorf("status %d, %v: %+v in %s", code, err, k, stdout)
	}
	code, stdout, _ = run(t, "surplus", "show", "--data-dir", dir, "--json", "--shard", "1")
	var f frameText
	if err := json.NewDecoder(strings.NewReader(stdout)).Decode(&f); err != nil || code != 0 || f.Shard != 1 || f.Mutations[1][0].Op != "delete-everything" {
		t.Errorf("status %d, %v: %+v", code, err, f)
	}
}

// What is printed is what redis-cli, or our own inline commands, read back byte for byte.
func TestPrintedCommandsAreReadBack(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, args := range [][]string{
		{"SET", "k", "v"}, {"SET", "", ""}, {"SET", "a b", "\"'\\"}, {"SET", "é", string(all), "PXAT", "17"}, {"DEL", "#no", "x1\\x41"},
	} {
		line := printed(args, false)
		var p resp.Parser
		p.Feed([]byte(line + "\r\n"))
		got, err := p.Next()
		if err != nil || len(got) != len(args) {
			t.Fatalf("%s: %q, %v", line, got, err)
		}
		for i := range args {
			if string(got[i]) != args[i] {
				t.Errorf("%s: argument %d is %q, want %q", line, i, got[i], args[i])
			}
		}
	}
	// One that was cut is refused, and so cannot be sent by mistake.
	var p resp.Parser
	p.Feed([]byte(printed([]string{"SET", "k", strings.Repeat("v", cutAt+1)}, false) + "\r\n"))
	if got, err := p.Next(); err == nil {
		t.Errorf("a command that was cut is read as %q", got)
	}
}

// Damage is told with its place, what is whole before it is shown, and nothing of the file is sent unasked.
func TestSurplusDamage(t *testing.T) {
	dir, files := twoShards(t)
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	second := wire.Overhead + int(uint32(whole[4])|uint32(whole[5])<<8)
	flip := func(at int) []byte { b := append([]byte(nil), whole...); b[at] ^= 1; return b }
	for _, c := range []struct {
		name      string
		bytes     []byte
		want      string
		mutations string
	}{
		{"a bit in a frame", flip(second + wire.HeaderSize + 1), fmt.Sprintf("is damaged at byte %d: wire: frame checksum mismatch", second), " 2 "},
		{"a bit in a header", flip(second + 9), fmt.Sprintf("is damaged at byte %d: wire: header checksum mismatch", second), " 2 "},
		{"no frame", []byte("GET / HTTP/1.1\r\n"), "is damaged at byte 0: wire: not an Understudy frame", " 0 "},
		{"cut in a frame", whole[:len(whole)-1], "is cut off at byte", " 5 "},
		{"cut in a header", whole[:second+7], fmt.Sprintf("is cut off at byte %d: wire: need more bytes; its frames are whole up to offset 12 and should go on to 16", second), " 2 "},
		{"cut between frames", whole[:second], fmt.Sprintf("is cut off at byte %d: there are no more frames", second), " 2 "},
		{"empty", nil, "is cut off at byte 0: there are no more frames; its frames are whole up to offset 10 and should go on to 16", " 0 "},
		{"a frame twice", append(append([]byte(nil), whole[:second]...), whole...), "a frame that begins at offset 10, where 12 comes next", " 2 "},
		{"more than its name says", append(append([]byte(nil), whole...), whole[:second]...), "a frame that begins at offset 10, where 16 comes next", " 6 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(files[0], c.bytes, 0o644); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := run(t, "surplus", "list", "--data-dir", dir)
			if code != 1 || !strings.Contains(stderr, files[0]+" ") || !strings.Contains(stderr, c.want) || strings.Count(stdout, "NOT WHOLE") != 1 || !strings.Contains(stdout, " "+c.mutations+" ") {
				t.Errorf("list: status %d, %s%s\nwant %q and %s mutations", code, stdout, stderr, c.want, c.mutations)
			}
			code, stdout, stderr = run(t, "surplus", "show", "--data-dir", dir)
			if code != 1 || !strings.Contains(stderr, c.want) || !strings.Contains(stdout, "DEL gone") {
				t.Errorf("show: status %d, %s%s", code, stdout, stderr)
			}
			code, stdout, stderr = run(t, "surplus", "replay", "--data-dir", dir, "--to", "127.0.0.1:1")
			if code != 1 || stdout != "" || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "nothing was sent: --partial") {
				t.Errorf("replay: status %d, %s%s", code, stdout, stderr)
			}
		})
	}
}

func TestSurplusOfTheWrongPlace(t *testing.T) {
	empty, node := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(node, "node.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	named := t.TempDir()
	if err := os.WriteFile(filepath.Join(named, "mine.frames"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"list --data-dir " + empty, 1, empty + " is no data directory of a node"},
		{"list --data-dir /no/such/directory", 1, "/no/such/directory"},
		{"list --data-dir run.go", 1, "run.go is a file; give the data directory"},
		{"list --data-dir " + named, 1, "mine.frames is not named as a surplus file is"},
		{"show --data-dir " + named, 1, "mine.frames is not named as a surplus file is"},
		{"list --data-dir " + node, 0, "no surplus in " + node},
		{"show --data-dir " + node + " --shard 3", 0, "no surplus of shard 3 in " + node},
		{"replay --to 127.0.0.1:1 --data-dir " + node, 0, "no surplus in " + node},
		{"show --data-dir " + node + " nowhere.frames", 1, "nowhere.frames is not named"},
		{"show /no/shard-000-00000000000000000000000000000001-1-2.frames", 1, "no such file"},
		{"list", 2, "--data-dir"},
		{"show", 2, "give --data-dir, or the paths of surplus files"},
		{"replay --to x:1", 2, "give --data-dir, or the paths of surplus files"},
		{"replay --data-dir " + node, 2, "--to"},
		{"replay --data-dir " + node + " --to x:1 --key a --allow-flush", 2, "--allow-flush empties the primary, whatever --key says"},
	} {
		code, stdout, stderr := run(t, append([]string{"surplus"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%s: status %d, %q, %q, want %d and %q", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
}

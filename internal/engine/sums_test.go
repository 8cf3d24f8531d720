package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/understudy-kv/understudy/wire"
)

// TestCheckpointSummed: a checkpoint tells the sums of the tables that this process wrote, flushed or compacted, and they are
// those of the files; of what an earlier process wrote it tells nothing. Nothing is kept of files that are gone.
func TestCheckpointSummed(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{Tuning: Tuning{Logged: 1 << 30}, MemTableSize: 256 << 10}
	r := newRig(t, fs, o)
	write := func(round int) {
		for k := range 200 {
			r.set(fmt.Sprint("k", k), fmt.Sprint(round, strings.Repeat(".", 500)))
		}
		r.commit()
		r.must(r.e.Flush())
	}
	checkpoint := func(dir string) (known, tables map[string]bool) {
		_, files, err := r.e.CheckpointSummed(dir)
		r.must(err)
		known, tables = map[string]bool{}, map[string]bool{}
		for _, f := range files {
			known[f.Name] = true
			if content := contentOf(t, fs, fs.PathJoin(dir, f.Name)); uint64(len(content)) != f.Size || xxh3.Hash128(content).Bytes() != f.Sum {
				t.Errorf("%s/%s: told were %d bytes with sum %x, it has %d with %x", dir, f.Name, f.Size, f.Sum, len(content), xxh3.Hash128(content).Bytes())
			}
		}
		names, err := fs.List(dir)
		r.must(err)
		for _, n := range names {
			if isTable(n) {
				tables[n] = true
			}
		}
		return known, tables
	}
	for round := range 20 {
		write(round)
		if known, tables := checkpoint(fmt.Sprint("copy-", round)); !maps.Equal(known, tables) || len(tables) == 0 {
			t.Fatalf("round %d: of the tables %v are known %v", round, tables, known)
		}
	}
	for path := range r.e.gate.sums.of {
		if fs.PathDir(path) != "shard/engine" || !strings.HasPrefix(fs.PathBase(path), "0") {
			t.Errorf("the sum of %s is still kept", path)
		}
	}
	_, before := checkpoint("last")
	r.must(r.e.Close())
	r.open("last", Options{FS: fs, MemTableSize: o.MemTableSize})
	write(99)
	known, tables := checkpoint("reopened")
	for name := range tables { // what was compacted meanwhile is this process's, too
		if known[name] == before[name] {
			t.Errorf("%s: is it known? %v; was it there before? %v", name, known[name], before[name])
		}
	}
	if len(known) == 0 {
		t.Error("no table is known")
	}
}

func contentOf(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A file that was not written from the beginning to the end, all of it, has no sum; and a name that is used again has none of
// the file before.
func TestSummedFile(t *testing.T) {
	for name, c := range map[string]struct {
		write func(vfs.File) error
		known bool
	}{
		"in order":     {func(f vfs.File) error { _, err := f.Write([]byte("abc")); return err }, true},
		"out of order": {func(f vfs.File) error { _, err := f.WriteAt([]byte("abc"), 0); return err }, false},
	} {
		fs := vfs.NewMem()
		g := newGate(fs, "", nil)
		g.sums.note("1.sst", wire.File{Size: 77})
		f, err := g.Create("1.sst", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if len(g.sums.of) != 0 {
			t.Errorf("%s: a file that is being written has a sum", name)
		}
		if err := c.write(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if got, known := g.sums.of["1.sst"]; known != c.known || known && (got.Size != 3 || got.Sum != xxh3.Hash128([]byte("abc")).Bytes()) {
			t.Errorf("%s: the sum is %+v, %v", name, got, known)
		}
		if err := g.Link("1.sst", "2.sst"); err != nil {
			t.Fatal(err)
		}
		if err := g.Remove("1.sst"); err != nil {
			t.Fatal(err)
		}
		if _, known := g.sums.of["2.sst"]; known != c.known || len(g.sums.of) > 1 {
			t.Errorf("%s: behind a link and a removal there are %v", name, g.sums.of)
		}
	}
}

// What is written to a table in pieces of all sizes is in the file, in order, once it is synced or closed, and so is its sum.
func TestTablesAreWrittenInLargePieces(t *testing.T) {
	for _, sync := range []bool{false, true} {
		fs := vfs.NewMem()
		g := newGate(fs, "", nil)
		f, err := g.Create("1.sst", stagedCategory)
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for _, n := range []int{1, 5000, writeBuffer - 5001, 1, writeBuffer, writeBuffer + 1, 7, 3 * writeBuffer, 0, 100} {
			piece := bytes.Repeat([]byte{byte(n), byte(n >> 8)}, n)[:n]
			want = append(want, piece...)
			if got, err := f.Write(piece); err != nil || got != n {
				t.Fatalf("%d bytes of %d written: %v", got, n, err)
			}
		}
		if sync {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		} else if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := fs.Open("1.sst")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("synced %v: %d bytes are in the file, %d were written (%v)", sync, len(got), len(want), err)
		}
		if sync {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if sum := g.sums.of["1.sst"]; sum.Size != uint64(len(want)) || sum.Sum != xxh3.Hash128(want).Bytes() {
			t.Fatalf("the sum is %+v", sum)
		}
	}
}

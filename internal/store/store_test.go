package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/primary/machinetest"
	"github.com/understudy-kv/understudy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openMap(e shard.Env) (shard.StateMachine, error) {
	return machinetest.OpenMap(e.Dir, e.BeforeFlush, e.OnError)
}

func options(dir string, shards int) store.Options {
	return store.Options{Dir: dir, Shards: shards, Role: store.Primary, Shard: shard.Options{FS: vfs.Default, Open: openMap}}
}

func open(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t *testing.T, s *store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

type put struct {
	done chan error
}

func (p put) Run(g *shard.Group) bool {
	g.Builder.Put([]byte("k"), []byte("v"))
	g.Builder.End()
	return true
}

func (p put) Committed(_ uint64, err error) { p.done <- err }

func write(t *testing.T, s *shard.Shard) {
	t.Helper()
	p := put{done: make(chan error, 1)}
	if err := s.Submit(p); err != nil {
		t.Fatal(err)
	}
	if err := <-p.done; err != nil {
		t.Fatal(err)
	}
}

func TestIdentityAndShardsStay(t *testing.T) {
	dir := t.TempDir()
	s := open(t, options(dir, 3))
	node, replica, nonce := s.NodeID(), s.ReplicaID(), s.Nonce()
	if node.IsZero() || replica.IsZero() || nonce.IsZero() || node == replica {
		t.Fatalf("node %s, replica %s, nonce %s", node, replica, nonce)
	}
	write(t, s.Shards()[1])
	closeStore(t, s)
	s = open(t, options(dir, 0))
	if s.NodeID() != node || s.ReplicaID() != replica || s.Nonce() == nonce {
		t.Fatal("the identities must stay, and the nonce must not")
	}
	if len(s.Shards()) != 3 || s.Shards()[1].Position().Offset != 1 {
		t.Fatalf("%d shards, the second at %s", len(s.Shards()), s.Shards()[1].Position())
	}
	closeStore(t, s)
	if _, err := store.Open(options(dir, 4)); err == nil || !strings.Contains(err.Error(), "has 3 shards, and 4 were asked for") {
		t.Fatalf("another shard count gave %v", err)
	}
}

// A primary that lacks a shard must not serve the others as if they were everything; a replica fetches it again.
func TestMissingShard(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, open(t, options(dir, 3)))
	if err := os.RemoveAll(filepath.Join(dir, "data-1", store.ShardName(1))); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(options(dir, 0))
	if err == nil || !strings.Contains(err.Error(), "shard 1 of 3 is missing") || !strings.Contains(err.Error(), "put it back") {
		t.Fatalf("a missing shard gave %v", err)
	}
	replica := t.TempDir()
	o := options(replica, 3)
	o.Role = store.Replica
	closeStore(t, open(t, o))
	if err := os.RemoveAll(filepath.Join(replica, "data-1", store.ShardName(1))); err != nil {
		t.Fatal(err)
	}
	s := open(t, o)
	if len(s.Shards()) != 3 || !s.Shards()[1].Position().IsZero() {
		t.Fatalf("%d shards, the second at %s, want 3 and none", len(s.Shards()), s.Shards()[1].Position())
	}
	closeStore(t, s)
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, options(dir, 1))
	if _, err := store.Open(options(dir, 1)); err == nil || !strings.Contains(err.Error(), "is in use by process") {
		t.Fatalf("a second opener got %v", err)
	}
	closeStore(t, s)
	closeStore(t, open(t, options(dir, 1)))
}

func TestDatasetSwitch(t *testing.T) {
	for _, keep := range []bool{false, true} {
		dir := t.TempDir()
		o := options(dir, 2)
		o.KeepPrevious = keep
		s := open(t, o)
		write(t, s.Shards()[0])
		d, err := s.NewDataset(5)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Shards()) != 2 {
			t.Fatal("a dataset in the making is served already")
		}
		if err := s.Switch(d); err != nil {
			t.Fatal(err)
		}
		if len(s.Shards()) != 5 || s.Shards()[0].Position().Offset != 0 {
			t.Fatalf("after the switch: %d shards", len(s.Shards()))
		}
		names, err := vfs.Default.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(names, " "), "previous"); got != keep {
			t.Fatalf("keep %v: the directory holds %v", keep, names)
		}
		d, err = s.NewDataset(1)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Discard(d); err != nil {
			t.Fatal(err)
		}
		if _, err = s.NewDataset(1); err != nil { // left behind, as by a crash
			t.Fatal(err)
		}
		closeStore(t, s)
		s = open(t, options(dir, 0))
		if len(s.Shards()) != 5 {
			t.Fatalf("reopened with %d shards, want 5", len(s.Shards()))
		}
		if n := datasets(t, dir); n != 1 {
			t.Fatalf("%d data sets: a primary's unfinished one was not removed", n)
		}
		closeStore(t, s)
	}
}

// datasets counts the data sets in a data directory.
func datasets(t *testing.T, dir string) (n int) {
	t.Helper()
	names, err := vfs.Default.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(strings.Join(names, " "), "data-")
}

// A replica goes on with the data set that it was filling when its process ended, unless it is to have another shard count,
// or follows another node, or gives it up.
func TestUnfinishedDatasetOutlivesRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		primary string                   // at the next start
		then    func(*store.Store) error // gives it up
		shards  int                      // asked for at the next start
		kept    bool
	}{
		"gone on with":        {shards: 3, kept: true},
		"another shard count": {shards: 4},
		"another primary":     {shards: 3, primary: "other:1"},
		"given up":            {shards: 3, then: (*store.Store).DiscardBegun},
		"promoted":            {shards: 3, then: func(s *store.Store) error { return s.SetRole(store.Primary, "") }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			closeStore(t, open(t, options(dir, 2)))
			o := options(dir, 0)
			s := open(t, o)
			if err := s.SetRole(store.Replica, "first:1"); err != nil {
				t.Fatal(err)
			}
			d, err := s.NewDataset(3)
			if err != nil {
				t.Fatal(err)
			}
			mark := filepath.Join(d.Shards()[0].Dir(), "staged")
			if err := os.WriteFile(mark, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			o.Primary = c.primary
			s = open(t, o)
			if c.then != nil {
				if err := c.then(s); err != nil {
					t.Fatal(err)
				}
				closeStore(t, s)
				s = open(t, o)
			}
			if n := datasets(t, dir); n != 1 && (c.primary != "" || c.then != nil) {
				t.Errorf("%d data sets in the directory", n)
			}
			if d, err = s.NewDataset(c.shards); err != nil {
				t.Fatal(err)
			}
			_, err = os.Stat(filepath.Join(d.Shards()[0].Dir(), "staged"))
			if (err == nil) != c.kept || len(d.Shards()) != c.shards {
				t.Errorf("%d shards, and what was staged: %v", len(d.Shards()), err)
			}
			if err := s.Switch(d); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			if n := datasets(t, dir); n != 1 {
				t.Errorf("%d data sets behind the switch", n)
			}
		})
	}
}

func TestParseID(t *testing.T) {
	id, err := store.ParseID("123e4567-e89b-12d3-a456-426614174000")
	if err != nil || id.String() != "123e4567-e89b-12d3-a456-426614174000" {
		t.Fatalf("%s, %v", id, err)
	}
	for _, bad := range []string{"", "x", "123e4567", strings.Repeat("0", 32), strings.Repeat("g", 32)} {
		if _, err := store.ParseID(bad); err == nil || !strings.Contains(err.Error(), "is not a UUID") {
			t.Errorf("%q gave %v", bad, err)
		}
	}
}

// A role is the directory's, not the program's that opens it.
func TestRoleIsKept(t *testing.T) {
	dir := t.TempDir()
	o := options(dir, 1)
	o.Role, o.Primary = store.Replica, "a:1"
	reopen := func(want store.Role, follows string) *store.Store {
		t.Helper()
		s := open(t, o)
		if role, primary := s.Role(); role != want || primary != follows {
			t.Fatalf("the role is %q following %q, want %q following %q", role, primary, want, follows)
		}
		if got := s.Shards()[0].Writable(); got != (want == store.Primary) {
			t.Fatalf("a %s's shard is writable: %v", want, got)
		}
		return s
	}
	s := reopen(store.Replica, "a:1")
	if err := s.SetRole(store.Replica, "b:2"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	closeStore(t, reopen(store.Replica, "b:2")) // the same flag as before is no new order
	o.Primary = "c:3"
	closeStore(t, reopen(store.Replica, "c:3")) // another one is
	s = reopen(store.Replica, "c:3")
	if err := s.SetRole(store.Primary, ""); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	closeStore(t, reopen(store.Primary, ""))
	o.Primary = "d:4"
	closeStore(t, reopen(store.Primary, "")) // a promoted node is not demoted by a flag
}

// A handover is kept from the moment that the role is given up until somebody has it; what was taken over and what was taken
// back are remembered apart.
func TestHandoverIsKept(t *testing.T) {
	o := options(t.TempDir(), 1)
	o.Role = store.Primary
	s := open(t, o)
	want := store.Handover{ID: wire.ID{1}, Target: "a:1", Positions: []wire.Position{{Generation: wire.Generation{2}, Offset: 3}}}
	if err := s.HandOver(want); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = open(t, o)
	if got := s.Handover(); got == nil || !reflect.DeepEqual(*got, want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
	if role, primary := s.Role(); role != store.Replica || primary != "a:1" || s.Shards()[0].Writable() {
		t.Fatalf("in a handover the node is a %s that follows %s", role, primary)
	}
	if err := s.TakeOver(wire.ID{4}); err != nil {
		t.Fatal(err)
	}
	if err := s.Void(wire.ID{5}); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = open(t, o)
	done, void := s.Takeovers()
	if role, _ := s.Role(); role != store.Primary || done != (wire.ID{4}) || void != (wire.ID{5}) || s.Handover() != nil {
		t.Fatalf("a %s, done %s, void %s, %+v", role, done, void, s.Handover())
	}
	if err := errors.Join(s.HandOver(want), s.SetRole(store.Replica, "a:1")); err != nil || s.Handover() != nil {
		t.Fatalf("%v, %+v", err, s.Handover())
	}
	if err := s.HandOver(want); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	o.Primary = "b:2" // who says whom to follow ends the handover
	s = open(t, o)
	if _, primary := s.Role(); primary != "b:2" || s.Handover() != nil {
		t.Fatalf("it follows %s, %+v", primary, s.Handover())
	}
	if s.TakeOver(wire.ID{}) == nil || s.Void(wire.ID{}) == nil {
		t.Error("a handover without an id was recorded")
	}
	closeStore(t, s)
}

// A data directory that was made a moment ago is there after a power loss, with the identity and the shards in it: under
// the policy always, writes have been acknowledged out of it.
func TestNewDirectoryOutlivesThePower(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := store.Options{Dir: "/var/lib/node", Shards: 2, Role: store.Primary, Shard: shard.Options{FS: fs, BootID: "boot-1", Fsync: shard.FsyncAlways}}
	engines := store.NewEngines(fs, 1, 2, 0, engine.Tuning{}, nil)
	defer engines.Close()
	o.Shard.Open = engines.Open
	s := open(t, o)
	id := s.NodeID()
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	closeStore(t, s)

	engines = store.NewEngines(left, 1, 2, 0, engine.Tuning{}, nil)
	defer engines.Close()
	o.Shard.FS, o.Shard.BootID, o.Shard.Open = left, "boot-2", engines.Open
	s = open(t, o)
	defer closeStore(t, s)
	if s.NodeID() != id {
		t.Fatalf("the directory of node %s came back as that of %s", id, s.NodeID())
	}
}

// stuckFS is a file system on which nothing can be moved to where previous data is kept.
type stuckFS struct{ vfs.FS }

var errStuck = errors.New("stuck")

func (fs stuckFS) Rename(from, to string) error {
	if filepath.Base(to) == "previous" {
		return errStuck
	}
	return fs.FS.Rename(from, to)
}

// TestSwitchWithoutKeeping: a replaced data set that cannot be kept does not undo the switch, which has happened, and is removed at the next start.
func TestSwitchWithoutKeeping(t *testing.T) {
	dir := t.TempDir()
	o := options(dir, 2)
	o.KeepPrevious, o.Shard.FS = true, stuckFS{vfs.Default}
	s := open(t, o)
	write(t, s.Shards()[0])
	d, err := s.NewDataset(3)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Switch(d); err != nil {
		t.Fatalf("a switch that has happened gave %v", err)
	}
	if s.Dataset() != d || datasets(t, dir) != 2 {
		t.Fatalf("%d shards, %d data sets on disk", len(s.Shards()), datasets(t, dir))
	}
	write(t, s.Shards()[2])
	closeStore(t, s)
	s = open(t, options(dir, 0))
	if len(s.Shards()) != 3 || s.Shards()[2].Position().Offset != 1 || datasets(t, dir) != 1 {
		t.Fatalf("reopened with %d shards, the last one at %s, %d data sets on disk", len(s.Shards()), s.Shards()[2].Position(), datasets(t, dir))
	}
	closeStore(t, s)
}

// That the shards may be of two histories outlives restarts and other primaries, and ends with the data set or with a promotion.
func TestMixedOutlivesRestarts(t *testing.T) {
	for name, end := range map[string]func(*store.Store) error{
		"taken back": func(s *store.Store) error { return s.SetMixed(false) },
		"promotion":  func(s *store.Store) error { return s.SetRole(store.Primary, "") },
		"handover":   func(s *store.Store) error { return s.TakeOver(wire.ID{1}) },
		"another data set": func(s *store.Store) error {
			d, err := s.NewDataset(3)
			if err != nil {
				return err
			}
			return s.Switch(d)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t.TempDir(), 2)
			o.Role = store.Replica
			s := open(t, o)
			if s.Mixed() {
				t.Fatal("a new directory is mixed")
			}
			if err := s.SetMixed(true); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			o.Shards = 0
			s = open(t, o)
			if err := s.SetRole(store.Replica, "other:1"); err != nil {
				t.Fatal(err)
			}
			if !s.Mixed() {
				t.Fatal("it was forgotten")
			}
			if err := end(s); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			s = open(t, o)
			if s.Mixed() {
				t.Error("it outlived its end")
			}
			closeStore(t, s)
		})
	}
}

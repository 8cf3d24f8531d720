package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// MaxShards is the largest number of shards.
const MaxShards = 256

const (
	nodeFile   = "node.json"
	nodeFormat = 1
)

// Options configure a store. Dir is required, and Shard.Open, the state machine's factory.
type Options struct {
	// Dir is the data directory. It is made if need be.
	Dir string
	// Shards is the shard count. 0 takes what the directory has, and none for a new one (a replica that has yet to learn).
	// Another count than the directory's is refused.
	Shards int
	// Shard holds what all shards have in common; Dir, Shard, Writable and KeepPrevious are set by the store. Its FS is the
	// store's.
	Shard shard.Options
	// Role is what the node of a new directory is; afterwards it is what SetRole recorded. It decides whether the shards are
	// opened writable. Default: [Replica].
	Role Role
	// Primary is the address that the node of a new directory follows, "host:port-base". See Store.Role.
	Primary string
	// KeepPrevious keeps replaced data under previous/ until the next replacement.
	KeepPrevious bool
}

// Role is what a node is. It is kept in the data directory, so that a restart, by whichever program, changes nothing.
type Role string

// The roles.
const (
	Primary Role = "primary" // its shards take commands
	Replica Role = "replica" // its shards take a primary's frames
)

// Store is an open data directory. All methods may be called from any goroutine.
type Store struct {
	opts Options
	fs   vfs.FS
	log  hclog.Logger
	// previous is held by whoever changes something under previous/.
	previous sync.Mutex
	// changing is held by whoever changes node.json, and taken before mu.
	changing sync.Mutex
	lock     io.Closer
	nonce    wire.ID

	mu struct {
		sync.Mutex
		node     node
		dataset  *Dataset
		building []*Dataset // made by NewDataset, not switched to yet
	}
}

// node is node.json.
type node struct {
	Format  int    `json:"format"`
	ID      string `json:"id"`
	Replica string `json:"replica_id"`
	Dataset int    `json:"dataset"` // k of data-<k>; 0 while there is none
	Shards  int    `json:"shards"`
	Created string `json:"created"`

	Role     Role   `json:"role,omitempty"`     // absent in directories of before roles could change
	Primary  string `json:"primary,omitempty"`  // what a replica follows, "host:port-base"
	Asked    string `json:"asked,omitempty"`    // Options.Primary at the last start
	Takeover string `json:"takeover,omitempty"` // the last handover that this node took over by
	Void     string `json:"void,omitempty"`     // the last one that was taken back here

	Mixed    bool      `json:"mixed,omitempty"`    // the shards may hold states of two histories
	Building *building `json:"building,omitempty"` // a data set that is to replace the present one
	Handover *Handover `json:"handover,omitempty"` // of this node's role to another one; its outcome is not known
}

// building is data-<Dataset>, which NewDataset made and nothing has switched to.
type building struct {
	Dataset int `json:"dataset"`
	Shards  int `json:"shards"`
}

// Dataset is a full set of shards.
type Dataset struct {
	number int
	dir    string
	shards []*shard.Shard
}

// Shards are the dataset's shards, by id. The slice must not be changed.
func (d *Dataset) Shards() []*shard.Shard {
	if d == nil {
		return nil
	}
	return d.shards
}

// Open locks the directory and opens its shards, all at once.
func Open(o Options) (_ *Store, err error) {
	o.Shard.EnsureDefaults()
	if o.Shard.BootID == "" {
		if o.Shard.BootID, err = BootID(); err != nil {
			return nil, err
		}
	}
	if o.Dir == "" {
		return nil, errors.New("no data directory was given: set --data-dir, or Options.Dir")
	}
	if o.Shards < 0 || o.Shards > MaxShards {
		return nil, fmt.Errorf("%d shards: the number must lie within 1 and %d", o.Shards, MaxShards)
	}
	s := &Store{opts: o, fs: o.Shard.FS, log: o.Shard.Logger, nonce: newID()}
	if err := safefile.MakeDir(s.fs, o.Dir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if s.lock, err = lockDir(s.fs, o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Close())
		}
	}()
	if err := s.openNode(); err != nil {
		return nil, err
	}
	s.opts.Shard.Writable = s.mu.node.Role == Primary
	if err := s.sweep(); err != nil {
		return nil, err
	}
	if s.mu.node.Dataset == 0 {
		if o.Shards == 0 {
			return s, nil
		}
		d, err := s.NewDataset(o.Shards)
		if err != nil {
			return nil, err
		}
		if err := s.Switch(d); err != nil {
			return nil, err
		}
		return s, nil
	}
	if o.Shards != 0 && o.Shards != s.mu.node.Shards {
		return nil, fmt.Errorf("data directory %s has %d shards, and %d were asked for: start with --shards %d, or with an empty directory (changing the number of shards of existing data is not possible yet)",
			o.Dir, s.mu.node.Shards, o.Shards, s.mu.node.Shards)
	}
	if err := s.checkWhole(); err != nil {
		return nil, err
	}
	if s.mu.dataset, err = s.openDataset(s.mu.node.Dataset, s.mu.node.Shards); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) openNode() error {
	b, err := safefile.Read(s.fs, s.opts.Dir, nodeFile)
	if errors.Is(err, os.ErrNotExist) {
		s.mu.node = node{Format: nodeFormat, ID: newID().String(), Replica: newID().String(), Created: time.Now().UTC().Format(time.RFC3339)}
		return s.recordRole()
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &s.mu.node); err != nil {
		return fmt.Errorf("%s: %w", s.fs.PathJoin(s.opts.Dir, nodeFile), err)
	}
	if s.mu.node.Format != nodeFormat {
		return fmt.Errorf("%s has format %d, this version reads %d: run the version that wrote it", s.fs.PathJoin(s.opts.Dir, nodeFile), s.mu.node.Format, nodeFormat)
	}
	return s.recordRole()
}

func (s *Store) writeNode(n node) error {
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	return safefile.Write(s.fs, s.opts.Dir, nodeFile, b)
}

// sweep removes datasets that nothing will go on with.
func (s *Store) sweep() error {
	names, err := s.fs.List(s.opts.Dir)
	if err != nil {
		return err
	}
	current, next := datasetName(s.mu.node.Dataset), ""
	if b := s.mu.node.Building; b != nil {
		next = datasetName(b.Dataset)
	}
	for _, n := range names {
		if strings.HasPrefix(n, "data-") && n != current && n != next {
			if err := s.fs.RemoveAll(s.fs.PathJoin(s.opts.Dir, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func datasetName(number int) string { return fmt.Sprintf("data-%d", number) }

// ShardName is the name of a shard's directory inside a dataset.
func ShardName(id int) string { return fmt.Sprintf("shard-%03d", id) }

// checkWhole refuses a primary's dataset that lacks a shard: it would serve a part of the keyspace as if it were all. A
// replica's missing shard is fetched again.
func (s *Store) checkWhole() error {
	if !s.opts.Shard.Writable {
		return nil
	}
	for i := range s.mu.node.Shards {
		dir := s.fs.PathJoin(s.opts.Dir, datasetName(s.mu.node.Dataset), ShardName(i))
		switch found, err := shard.Exists(s.fs, dir); {
		case err != nil:
			return err
		case !found:
			return fmt.Errorf("shard %d of %d is missing: %s was moved away or deleted; put it back, promote a replica, or empty %s to begin without data",
				i, s.mu.node.Shards, dir, s.opts.Dir)
		}
	}
	return nil
}

func (s *Store) openDataset(number, shards int) (*Dataset, error) {
	d := &Dataset{number: number, dir: s.fs.PathJoin(s.opts.Dir, datasetName(number)), shards: make([]*shard.Shard, shards)}
	s.mu.Lock()
	common := s.opts.Shard
	s.mu.Unlock()
	var group errgroup.Group
	for i := range d.shards {
		// One goroutine a shard recovers it; Wait below waits for all.
		group.Go(func() (err error) {
			o := common
			o.Shard = i
			o.Dir = s.fs.PathJoin(d.dir, ShardName(i))
			if s.opts.KeepPrevious {
				o.KeepPrevious, o.Keeping = s.fs.PathJoin(s.opts.Dir, "previous", ShardName(i)), &s.previous
			}
			d.shards[i], err = shard.Open(o)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *Dataset) close() error {
	errs := make([]error, len(d.shards))
	var wait sync.WaitGroup
	for i, sh := range d.shards {
		if sh != nil {
			// One goroutine a shard stops it; Wait below waits for all.
			wait.Go(func() { errs[i] = sh.Close() })
		}
	}
	wait.Wait()
	return errors.Join(errs...)
}

// NewDataset makes a dataset of n shards beside the current one, empty unless an earlier process has begun it. It becomes the
// node's by Switch, and is given up by Discard; otherwise it outlives the process.
func (s *Store) NewDataset(n int) (*Dataset, error) {
	if n < 1 || n > MaxShards {
		return nil, fmt.Errorf("%d shards: the number must lie within 1 and %d", n, MaxShards)
	}
	s.mu.Lock()
	begun, number := s.mu.node.Building, s.mu.node.Dataset+1
	s.mu.Unlock()
	if begun != nil && *begun == (building{number, n}) {
		d, err := s.openDataset(number, n)
		if err == nil {
			s.mu.Lock()
			s.mu.building = append(s.mu.building, d)
			s.mu.Unlock()
			return d, nil
		}
		s.log.Warn("a data set that the last process began cannot be gone on with; it is begun again", "directory", datasetName(number), "error", err)
	}
	if err := s.fs.RemoveAll(s.fs.PathJoin(s.opts.Dir, datasetName(number))); err != nil {
		return nil, err
	}
	if err := s.changeNode(func(node *node) { node.Building = &building{number, n} }); err != nil {
		return nil, err
	}
	d, err := s.openDataset(number, n)
	if err == nil {
		s.mu.Lock()
		s.mu.building = append(s.mu.building, d)
		s.mu.Unlock()
	}
	return d, err
}

func (s *Store) builtLocked(d *Dataset) {
	s.mu.building = slices.DeleteFunc(s.mu.building, func(b *Dataset) bool { return b == d })
}

// Discard closes and deletes a dataset that was not switched to.
func (s *Store) Discard(d *Dataset) error {
	s.mu.Lock()
	s.builtLocked(d)
	s.mu.Unlock()
	return errors.Join(d.close(), s.forget(), s.fs.RemoveAll(d.dir))
}

// DiscardBegun deletes a dataset that an earlier process began and this one has not gone on with.
func (s *Store) DiscardBegun() error {
	s.mu.Lock()
	begun := s.mu.node.Building
	s.mu.Unlock()
	if begun == nil {
		return nil
	}
	return errors.Join(s.forget(), s.fs.RemoveAll(s.fs.PathJoin(s.opts.Dir, datasetName(begun.Dataset))))
}

func (s *Store) forget() error { return s.changeNode(func(n *node) { n.Building = nil }) }

// Switch makes d the node's dataset. The old one is closed, and kept under previous/ or deleted. The caller has taken its
// users away from the old one's shards, or accepts that they get shard.ErrClosed.
func (s *Store) Switch(d *Dataset) error {
	var old *Dataset
	err := s.changeWith(func(n *node) { n.Dataset, n.Shards, n.Building, n.Mixed = d.number, len(d.shards), nil, false }, func() {
		old, s.mu.dataset = s.mu.dataset, d
		s.builtLocked(d)
	})
	if err != nil || old == nil {
		return err
	}
	// It is done. What is in the way of the old one's end is no reason to say otherwise; what is left of it, the next start removes.
	if err := errors.Join(old.close(), s.putAway(old)); err != nil {
		s.log.Error("the data set that was replaced could not be put away; the next start removes it: copy it before, if it is to be kept", "dir", old.dir, "error", err)
	}
	return nil
}

// putAway moves a dataset that was replaced to where previous data is kept, or deletes it.
func (s *Store) putAway(old *Dataset) error {
	if !s.opts.KeepPrevious {
		return s.fs.RemoveAll(old.dir)
	}
	s.previous.Lock() // a shard of the new one may be putting something there, too
	defer s.previous.Unlock()
	previous := s.fs.PathJoin(s.opts.Dir, "previous")
	return errors.Join(s.fs.RemoveAll(previous), s.fs.Rename(old.dir, previous))
}

// Dataset is the node's dataset, nil while there is none.
func (s *Store) Dataset() *Dataset {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.dataset
}

// Shards are the shards of the node's dataset, by id; none while there is no dataset.
func (s *Store) Shards() []*shard.Shard { return s.Dataset().Shards() }

// Dir is the data directory.
func (s *Store) Dir() string { return s.opts.Dir }

// FS is the file system that holds it.
func (s *Store) FS() vfs.FS { return s.fs }

// NodeID is the identity of the data directory, drawn when it was made.
func (s *Store) NodeID() wire.ID { return parseID(s.nodeCopy().ID) }

// ReplicaID is the identity under which the node follows a primary, drawn when the directory was made.
func (s *Store) ReplicaID() wire.ID { return parseID(s.nodeCopy().Replica) }

// Nonce is drawn at each Open: it tells two processes apart that have copies of one directory.
func (s *Store) Nonce() wire.ID { return s.nonce }

func (s *Store) nodeCopy() node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.node
}

// Close stops all shards cleanly and gives the directory free.
func (s *Store) Close() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	all := s.mu.building
	if s.mu.dataset != nil {
		all = append(all, s.mu.dataset)
	}
	s.mu.dataset, s.mu.building = nil, nil
	s.mu.Unlock()
	var err error
	for _, d := range all {
		err = errors.Join(err, d.close())
	}
	return errors.Join(err, s.lock.Close())
}

// newID draws a random UUID (version 4).
func newID() (id wire.ID) {
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// ParseID reads a UUID, with or without its dashes.
func ParseID(s string) (wire.ID, error) {
	var id wire.ID
	plain := strings.ReplaceAll(s, "-", "")
	if len(plain) == 2*len(id) {
		if _, err := hex.Decode(id[:], []byte(plain)); err == nil && !id.IsZero() {
			return id, nil
		}
	}
	return wire.ID{}, fmt.Errorf("%q is not a UUID: give 32 hex digits, such as 123e4567-e89b-12d3-a456-426614174000", s)
}

func parseID(s string) wire.ID {
	id, err := ParseID(s)
	if err != nil {
		panic("store: " + err.Error()) // node.json was written by newID and carries a checksum
	}
	return id
}

// BootID is the identity of the running kernel.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("the kernel's boot id tells a killed process from a power loss: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

package mirrorexample

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/understudy-kv/understudy/primary"
	"github.com/understudy-kv/understudy/primary/machinetest"
	"github.com/understudy-kv/understudy/replica"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// A keyspace, mirrored inside one process: the five lines are those without a check.
func Example() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	p, err := primary.Open(primary.Options{Dir: filepath.Join(dir, "primary"), Shards: 4})
	check(err)
	defer p.Close()
	r, err := replica.Open(replica.Options{Dir: filepath.Join(dir, "replica"), Primary: p.ReplicationAddr()})
	check(err)
	defer r.Close()

	for i := range 100 {
		_, err = p.Do(ctx, "SET", fmt.Sprint("user:", i), i*i)
		check(err)
	}
	check(r.WaitCaughtUp(ctx))

	v, err := r.Do(ctx, "GET", "user:12")
	fmt.Println(v, err)
	n, err := r.Do(ctx, "DBSIZE")
	fmt.Println(n, err)
	_, err = r.Do(ctx, "SET", "user:12", 0)
	fmt.Println(err)

	// Output:
	// 144 <nil>
	// 100 <nil>
	// READONLY You can't write against a read only replica.
}

// The same with a state machine of the program's own on both sides, here a Go map: what Propose writes at the primary
// arrives in the replica's map. The replica's first map comes from a checkpoint of the primary's, the rest from the stream.
func Example_ownStateMachine() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	p, err := primary.Open(primary.Options{
		Dir: filepath.Join(dir, "primary"), Shards: 2,
		StateMachine: func(e primary.MachineEnv) (primary.StateMachine, error) {
			return machinetest.OpenMap(e.Dir, e.BeforeFlush, e.OnError)
		},
	})
	check(err)
	defer p.Close()
	put := func(shard int, key, value string) wire.Position {
		at, err := p.Propose(ctx, shard, func(b *wire.Builder) error {
			b.Put([]byte(key), []byte(value))
			return nil
		})
		check(err)
		return at
	}
	put(0, "before", "in the checkpoint")

	r, err := replica.Open(replica.Options{
		Dir: filepath.Join(dir, "replica"), Primary: p.ReplicationAddr(),
		StateMachine: func(e replica.MachineEnv) (replica.StateMachine, error) {
			return machinetest.OpenMap(e.Dir, e.BeforeFlush, e.OnError)
		},
	})
	check(err)
	defer r.Close()
	check(r.WaitCaughtUp(ctx))
	at := put(1, "after", "in the stream")

	// One replica has applied everything before the offset of shard 1, and so its readers see it.
	fmt.Println(p.WaitAcked(ctx, []uint64{0, at.Offset}, 1, slottable.Applied), "replica")
	for shard, key := range []string{"before", "after"} {
		check(r.Shards()[shard].Use(func(m replica.StateMachine) error {
			v, found, err := m.(*machinetest.Map).Get([]byte(key))
			fmt.Printf("%s: %s, %v\n", key, v, found)
			return err
		}))
	}

	// Output:
	// 1 replica
	// before: in the checkpoint, true
	// after: in the stream, true
}

func tempDir() string {
	dir, err := os.MkdirTemp("", "mirror")
	check(err)
	return dir
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

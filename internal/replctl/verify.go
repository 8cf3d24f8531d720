package replctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/status"
)

type verifyCommand struct {
	Primary string        `help:"RESP address of the primary, or of another replica of its." placeholder:"HOST:PORT" required:""`
	Replica string        `help:"RESP address of the replica." placeholder:"HOST:PORT" required:""`
	Wait    time.Duration `help:"How long the replica may take to reach the primary's position, for each shard." default:"30s"`
	Keys    int           `help:"How many differing keys are printed at most." default:"100"`
	JSON    bool          `help:"Print the result as JSON." name:"json"`
}

// Verification is what was compared and what differed.
type Verification struct {
	Identical   bool            `json:"identical"`
	Shards      []VerifiedShard `json:"shards"`
	Differences []Difference    `json:"differences"`
	Differing   int             `json:"differing"` // all of them, also those that are not listed
}

// VerifiedShard says at which position a shard was compared, and how many engine entries the primary had there.
type VerifiedShard struct {
	Shard    int    `json:"shard"`
	Position string `json:"position"`
	Entries  uint64 `json:"entries"`
}

// Difference is a key that the two nodes do not have alike.
type Difference struct {
	Shard int    `json:"shard"`
	Key   string `json:"key"`  // quoted as in Go, since it may hold any bytes
	What  string `json:"what"` // of the key: its record, or its entry in the expiry index
	Sides string `json:"sides"`
}

// VerifyOptions say what to compare and how.
type VerifyOptions struct {
	Primary, Replica string        // RESP addresses; Primary may be another replica, above or beside Replica
	Wait             time.Duration // see the flag of this name
	Keys             int           // see the flag of this name
	Progress         func(done float64)
}

// Verify compares the two keyspaces, each shard at one position that both have reached. Writes go on meanwhile. An error
// means that they could not be compared.
func Verify(ctx context.Context, o VerifyOptions) (v Verification, err error) {
	v.Differences = []Difference{}
	if o.Progress == nil {
		o.Progress = func(float64) {}
	}
	nodes := make([]*verifiedNode, 2)
	for i, n := range []struct{ addr, what string }{{o.Primary, "primary"}, {o.Replica, "replica"}} {
		if nodes[i], err = openNode(ctx, n.addr, n.what); err != nil {
			return v, err
		}
		defer nodes[i].conn.Close()
	}
	primary, replica := nodes[0], nodes[1]
	if !replica.follows() {
		return v, fmt.Errorf("%s is a %s, not a replica; give the addresses of a primary and of its replica, or of two replicas", o.Replica, replica.status.Role)
	}
	if primary.status.ID != "" && primary.status.ID == replica.status.ID {
		return v, fmt.Errorf("%s and %s are one node, %s", o.Primary, o.Replica, replica.status.ID)
	}
	shards := len(primary.status.Shards)
	if n := len(replica.status.Shards); n != shards {
		return v, fmt.Errorf("the primary has %d shards and the replica %d: the replica has not fetched this primary's data yet; see replctl status", shards, n)
	}
	for shard := range shards {
		if err := primary.comparable(replica, shard); err != nil {
			return v, fmt.Errorf("shard %d: %w", shard, err)
		}
	}
	for shard := range shards {
		err := v.shard(ctx, shard, primary, replica, o, func(part float64) { o.Progress((float64(shard) + part) / float64(shards)) })
		if err != nil {
			return v, fmt.Errorf("shard %d: %w", shard, err)
		}
	}
	o.Progress(1)
	v.Identical = v.Differing == 0
	return v, nil
}

type verifiedNode struct {
	conn   *client.Conn
	status status.Node
}

func openNode(ctx context.Context, addr, what string) (*verifiedNode, error) {
	c, err := client.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	c.SetTimeout(askTimeout)
	n := &verifiedNode{conn: c}
	if n.status, err = c.Status(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return n, nil
}

// shard compares one shard, at a position of both.
func (v *Verification) shard(ctx context.Context, shard int, primary, replica *verifiedNode, o VerifyOptions, progress func(float64)) (err error) {
	p, r, err := openPair(primary, replica, shard, o.Wait)
	if err != nil {
		return err
	}
	defer p.close()
	defer r.close()
	lowest, slots := shardSlots(shard, len(primary.status.Shards))
	at := func(from []byte) {
		if k, err := engine.DecodeKey(from); err == nil && k.Kind == engine.KeyData {
			progress((float64(k.Slot) - lowest) / slots)
		}
	}
	err = compareRanges(ctx, p, r, at, func(key []byte, s sides) {
		v.Differing++
		if len(v.Differences) < o.Keys {
			d := describeDifference(shard, key, s)
			if primary.follows() && s != bothDiffer {
				// Neither is the primary.
				d.Sides = "only at " + map[sides]string{onlyPrimary: o.Primary, onlyReplica: o.Replica}[s]
			}
			v.Differences = append(v.Differences, d)
		}
	})
	v.Shards = append(v.Shards, VerifiedShard{Shard: shard, Position: p.position, Entries: p.entries})
	return err
}

func shardSlots(shard, shards int) (lowest, n float64) {
	n = float64(engine.Slots) / float64(shards)
	return float64(shard) * n, n
}

func describeDifference(shard int, key []byte, s sides) Difference {
	d := Difference{Shard: shard, Key: strconv.Quote(string(key)), What: "entry", Sides: string(s)}
	if k, err := engine.DecodeKey(key); err == nil && k.Kind != engine.KeySystem {
		d.Key, d.What = strconv.Quote(string(k.User)), "record"
		if k.Kind == engine.KeyIndex {
			d.What = "expiry at " + deadline(k.Deadline)
		}
	}
	return d
}

func (c *verifyCommand) run(ctx context.Context, out output) int {
	bar := newProgressBar(out.stderr)
	v, err := Verify(ctx, VerifyOptions{Primary: c.Primary, Replica: c.Replica, Wait: c.Wait, Keys: c.Keys, Progress: bar.show})
	bar.clear()
	if err != nil {
		return out.complain("not verified: %v", err)
	}
	if c.JSON {
		e := json.NewEncoder(out.stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			return out.complain("%v", err)
		}
	} else {
		v.print(out)
	}
	if !v.Identical {
		return cli.Failed
	}
	return cli.Clean
}

func (v Verification) print(out output) {
	var entries uint64
	for _, s := range v.Shards {
		fmt.Fprintf(out.stdout, "shard %d: %d entries compared at position %s\n", s.Shard, s.Entries, s.Position)
		entries += s.Entries
	}
	for _, d := range v.Differences {
		fmt.Fprintf(out.stdout, "shard %d: key %s: %s: %s\n", d.Shard, d.Key, d.What, d.Sides)
	}
	if n := v.Differing - len(v.Differences); n > 0 {
		fmt.Fprintf(out.stdout, "… and %d more\n", n)
	}
	if v.Identical {
		fmt.Fprintf(out.stdout, "identical: yes, %d shards, %d entries\n", len(v.Shards), entries)
	} else {
		fmt.Fprintf(out.stdout, "identical: NO, %d of %d entries differ\n", v.Differing, entries)
	}
}

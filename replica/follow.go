package replica

import (
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/shard"
)

// Follow makes the following half of a node from o, of which the node sets Primary, Store, ReplicaID, Nonce, Node,
// Announce, AnnounceBase, Cluster, Format, FS, OnChange and, where there is none, Surplus and Logger. A primary that is to
// become a replica takes it as primary.Options.Follow.
func Follow(o FollowerOptions) node.FollowFunc {
	return func(env node.FollowEnv) (node.Follower, error) {
		o := o
		o.Primary, o.Store, o.ReplicaID, o.Nonce, o.Node = env.Primary, dataSets{env.Store}, env.ReplicaID, env.Nonce, env.Node
		o.Announce, o.AnnounceBase, o.Cluster, o.Format, o.FS, o.OnChange = env.Announce, env.AnnounceBase, env.Cluster, env.Format, env.FS, env.OnChange
		if o.Logger == nil {
			o.Logger = env.Logger
		}
		if o.Surplus == nil {
			logger := o.Logger
			o.Surplus = func(s Shard, from uint64) error { return saveSurplus(env.FS, env.Dir, logger, s, from) }
		}
		f, err := NewFollower(o)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
}

// dataSets is a node's data sets as a [Store].
type dataSets struct{ node.DataSets }

func (s dataSets) Shards() []Shard { return asShards(s.DataSets.Shards()) }

func (s dataSets) NewDataset(n int) ([]Shard, error) {
	shards, err := s.DataSets.NewDataset(n)
	return asShards(shards), err
}

func asShards(in []*shard.Shard) []Shard {
	out := make([]Shard, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}

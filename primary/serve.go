package primary

import "github.com/understudy-kv/understudy/internal/node"

// Serve makes the serving half of a node from o, of which the node sets Shards, Listeners, Node, Cluster, Format, FS,
// Dir, Limits, Path, Following, Streaming, Mixed, Announce, Takeover and, if there is none, Logger. A replica that is to be promoted, or to
// serve replicas of its own, takes it as replica.Options.Serve.
func Serve(o ServerOptions) node.ServeFunc {
	return func(env node.ServeEnv) (node.Server, error) {
		o := o
		o.Shards = make([]Shard, len(env.Shards))
		for i, s := range env.Shards {
			o.Shards[i] = s
		}
		o.Listeners, o.Node, o.Cluster, o.Format, o.FS, o.Dir = env.Listeners, env.Node, env.Cluster, env.Format, env.FS, env.Dir
		o.Limits, o.Path, o.Following, o.Streaming, o.Mixed = env.Limits, env.Path, env.Following, env.Streaming, env.Mixed
		o.Announce, o.Takeover = env.Announce, env.Takeover
		if o.Logger == nil {
			o.Logger = env.Logger
		}
		s, err := NewServer(o)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
}

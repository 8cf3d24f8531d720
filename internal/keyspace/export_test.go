package keyspace

import "github.com/understudy-kv/understudy/internal/shard"

// Tick does on every shard's loop what the loops do ten times a second.
func (k *Keyspace) Tick() {
	on := k.set.Load()
	for i, s := range on.shards {
		onLoop(s, func(g *shard.Group) bool { k.tick(on.tables[i], g); return true })
	}
}

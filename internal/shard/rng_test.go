package shard_test

import "math/rand/v2"

// rng is the randomness of a crash: which unsynced data survives.
func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

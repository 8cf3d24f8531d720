package keyspace

import (
	"bytes"
	"sync"
	"sync/atomic"
)

// Stats are counters since the process started, or since they were reset.
type Stats struct {
	Commands   atomic.Uint64 // executed, those that failed included
	Expired    atomic.Uint64 // keys deleted because their deadline passed
	Errors     atomic.Uint64 // replies that are errors
	Aborted    atomic.Uint64 // transactions that did not happen, because of a watched key or an earlier error
	Exclusives atomic.Uint64 // commands and transactions that held more than one shard at once

	codes   sync.Map // of errors, by their first word: *atomic.Uint64
	lookups lookups  // of shards that are no more
}

// lookups count the keys that readers looked for. Each shard has its own, so that no two cores share them.
type lookups struct{ hits, misses atomic.Uint64 }

func (l *lookups) add(hits, misses uint64) {
	if hits > 0 {
		l.hits.Add(hits)
	}
	if misses > 0 {
		l.misses.Add(misses)
	}
}

// Lookups are how many keys readers looked for and found, or did not find. What runs again because the group that it was in
// failed counts again.
func (k *Keyspace) Lookups() (hits, misses uint64) {
	k.eachLookups(func(l *lookups) {
		hits += l.hits.Load()
		misses += l.misses.Load()
	})
	return hits, misses
}

func (k *Keyspace) eachLookups(f func(*lookups)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.Stats.lookups)
	for _, t := range k.mu.tables {
		f(&t.lookups)
	}
}

// ErrorCodes are how many replies were errors, by the errors' first words.
func (k *Keyspace) ErrorCodes() map[string]uint64 {
	codes := map[string]uint64{}
	k.Stats.codes.Range(func(code, n any) bool {
		codes[code.(string)] = n.(*atomic.Uint64).Load()
		return true
	})
	return codes
}

// ResetStats sets all counters to zero.
func (k *Keyspace) ResetStats() {
	s := &k.Stats
	for _, c := range []*atomic.Uint64{&s.Commands, &s.Errors, &s.Expired, &s.Aborted, &s.Exclusives} {
		c.Store(0)
	}
	s.codes.Clear()
	k.eachLookups(func(l *lookups) {
		l.hits.Store(0)
		l.misses.Store(0)
	})
}

// noteError counts a reply that is an error, without its "-" or with it. Errors are made here, so their codes are few.
func (k *Keyspace) noteError(reply []byte) {
	k.Stats.Errors.Add(1)
	code, _, _ := bytes.Cut(bytes.TrimPrefix(reply, []byte("-")), []byte(" "))
	n, ok := k.Stats.codes.Load(string(code))
	if !ok {
		n, _ = k.Stats.codes.LoadOrStore(string(code), new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

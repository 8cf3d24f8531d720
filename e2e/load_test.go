package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A load writes to one node from several clients and remembers what was acknowledged. Each client has keys of its own;
// the n-th write to a key is a function of n, so that from a value one can tell which write it is. After a write whose
// outcome the client was not told, its key is left alone for good: the write may still be on its way.
type load struct {
	t       testing.TB
	node    *node
	opts    loadOptions
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	acked   atomic.Int64
	errors  atomic.Int64
	first   atomic.Value // the text of the first error
	moved   atomic.Int64 // writes that were answered -READONLY, and sent again to another node
	clients []*loadClient
}

type loadOptions struct {
	clients  int           // 0: 4
	pipeline int           // 0: 8
	keys     int           // a client; 0: 64
	value    int           // bytes; 0: 64
	pause    time.Duration // between pipelines; 0: none
	others   []*node       // where the role may move: a client that is answered -READONLY looks for the primary there
	replicas int           // every eighth pipeline ends with WAIT for so many, and what they have is marked as safe; 0: none
}

// loadKey is one key's history: the writes up to acked were acknowledged, the one at sent may have happened, and those up to
// safe are on as many replicas as the load asked for.
type loadKey struct {
	name              string
	acked, sent, safe int
}

type loadClient struct {
	load uint64 // number of the load in this run, so that no two write the same keys
	id   int
	next int // number of the next key that is made
	live []*loadKey
	all  []*loadKey
}

// loads counts the loads of this run.
var loads atomic.Uint64

// startLoad begins to write. The test must call stop before it looks at what was acknowledged.
func (n *node) startLoad(o loadOptions) *load {
	n.t.Helper()
	if o.clients == 0 {
		o.clients = 4
	}
	if o.pipeline == 0 {
		o.pipeline = 8
	}
	if o.keys == 0 {
		o.keys = 64
	}
	if o.value == 0 {
		o.value = 64
	}
	number := loads.Add(1)
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: n.t, node: n, opts: o, cancel: cancel}
	for i := range o.clients {
		c := &loadClient{load: number, id: i}
		for range o.keys {
			c.newKey()
		}
		l.clients = append(l.clients, c)
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			l.run(ctx, c)
		}()
	}
	n.t.Cleanup(l.stop)
	return l
}

func (c *loadClient) newKey() *loadKey {
	k := &loadKey{name: fmt.Sprintf("load:%d:%d:%d", c.load, c.id, c.next)}
	c.next++
	c.live, c.all = append(c.live, k), append(c.all, k)
	return k
}

// loadPadding makes values of the size that was asked for. It does not compress well.
var loadPadding = func() string {
	b := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte('!' + r.IntN(90))
	}
	return string(b)
}()

// Every tenth write to a key deletes it.
func deletes(write int) bool { return write%10 == 9 }

func (l *load) run(ctx context.Context, c *loadClient) {
	target := l.node
	for at, round := 0, 0; ctx.Err() == nil; round++ {
		pipe := target.rdb.Pipeline()
		var keys []*loadKey
		for range min(l.opts.pipeline, len(c.live)) {
			k := c.live[at%len(c.live)]
			at++
			k.sent++
			keys = append(keys, k)
			if deletes(k.sent) {
				pipe.Del(context.Background(), k.name)
			} else {
				pad := (k.sent * 31) % (len(loadPadding) - l.opts.value)
				pipe.Set(context.Background(), k.name, strconv.Itoa(k.sent)+":"+loadPadding[pad:pad+l.opts.value], 0)
			}
		}
		var wait *redis.Cmd
		if l.opts.replicas > 0 && round%8 == 0 {
			wait = pipe.Do(context.Background(), "WAIT", l.opts.replicas, 200)
		}
		// The context is not the request's: a write in flight is waited for, so that few outcomes are unknown.
		results, _ := pipe.Exec(context.Background())
		failed, moved := false, false
		for i, k := range keys {
			var err error
			if i < len(results) {
				err = results[i].Err()
			}
			switch {
			case i < len(results) && err == nil:
				k.acked = k.sent
				l.acked.Add(1)
			case len(l.opts.others) > 0 && err != nil && strings.HasPrefix(err.Error(), "READONLY"):
				k.sent-- // It did not happen, and is written again elsewhere.
				l.moved.Add(1)
				moved = true
			default:
				failed = true
				l.fail(c, k, err)
			}
		}
		if wait != nil && !failed && !moved {
			if n, err := wait.Int(); err == nil && n >= l.opts.replicas {
				for _, k := range keys {
					k.safe = k.acked
				}
			}
		}
		if moved {
			target = l.primary(target)
		}
		if wait := l.opts.pause; failed || moved || wait > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(max(wait, 10*time.Millisecond)):
			}
		}
	}
}

// fail leaves a key alone for good, and has the client take another one.
func (l *load) fail(c *loadClient, k *loadKey, err error) {
	if l.errors.Add(1) == 1 && err != nil {
		l.first.Store(err.Error())
	}
	for j, live := range c.live {
		if live == k {
			c.live = append(c.live[:j], c.live[j+1:]...)
			break
		}
	}
	c.newKey()
}

// primary looks for the node that takes writes now, as a client does that was answered -READONLY.
func (l *load) primary(otherwise *node) *node {
	for _, n := range l.opts.others {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		role, err := n.rdb.Do(ctx, "ROLE").Slice()
		cancel()
		if err == nil && len(role) > 0 && role[0] == "master" {
			return n
		}
	}
	return otherwise
}

// unsettle takes back what is asked of writes that only the last primary may have: it was lost, or left.
func (l *load) unsettle() {
	for _, c := range l.clients {
		for _, k := range c.all {
			k.acked = k.safe
		}
	}
}

// settle marks everything as safe: every node was seen to have it.
func (l *load) settle() {
	for _, c := range l.clients {
		for _, k := range c.all {
			k.safe = k.acked
		}
	}
}

// forget deletes what the load wrote.
func (l *load) forget(n *node) {
	l.t.Helper()
	pipe := n.rdb.Pipeline()
	for _, c := range l.clients {
		for _, k := range c.all {
			pipe.Del(context.Background(), k.name)
		}
	}
	_, err := pipe.Exec(context.Background())
	must(l.t, err)
}

// stop ends the writing and waits for the clients. It may be called twice.
func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// waitAcked waits until so many more writes were acknowledged than now.
func (l *load) waitAcked(more int64, within time.Duration) {
	l.t.Helper()
	want := l.acked.Load() + more
	eventually(l.t, within, fmt.Sprintf("%d more writes are acknowledged", more), func() error {
		return errorf(l.acked.Load() >= want, "%d of %d, %d errors", l.acked.Load(), want, l.errors.Load())
	})
}

// check compares a node with what was acknowledged: each key must hold the last acknowledged write or one that was
// sent after it.
func (l *load) check(n *node) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	lost, checked := 0, 0
	for _, c := range l.clients {
		for from := 0; from < len(c.all); from += 500 {
			keys := c.all[from:min(from+500, len(c.all))]
			pipe := n.rdb.Pipeline()
			results := make([]*redis.StringCmd, len(keys))
			for i, k := range keys {
				results[i] = pipe.Get(ctx, k.name)
			}
			if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
				l.t.Fatalf("%s: %v", n.name, err)
			}
			for i, k := range keys {
				checked++
				if err := k.judge(results[i].Val(), results[i].Err() == redis.Nil); err != nil {
					if lost++; lost <= 10 {
						l.t.Errorf("%s: %v", n.name, err)
					}
				}
			}
		}
	}
	if lost > 0 {
		l.t.Fatalf("%s: %d of %d keys are not what was acknowledged (%d writes acknowledged, %d failed)", n.name, lost, checked, l.acked.Load(), l.errors.Load())
	}
}

func (k *loadKey) judge(value string, absent bool) error {
	if absent {
		for w := k.acked; w <= k.sent; w++ {
			if w == 0 || deletes(w) {
				return nil
			}
		}
		return fmt.Errorf("key %s is absent: write %d was acknowledged, %d was sent", k.name, k.acked, k.sent)
	}
	number, _, _ := strings.Cut(value, ":")
	w, err := strconv.Atoi(number)
	if err != nil || w < k.acked || w > k.sent {
		return fmt.Errorf("key %s holds write %.20q: write %d was acknowledged, %d was sent", k.name, value, k.acked, k.sent)
	}
	return nil
}

// fill writes so many bytes of values that do not compress, fast, and returns when all are acknowledged.
func (n *node) fill(prefix string, bytes int64, value int) {
	n.t.Helper()
	const clients = 2
	var wg sync.WaitGroup
	errs := make(chan error, clients)
	each := max(1, int(bytes/int64(value)/clients))
	for c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(c), 7))
			buf := make([]byte, value)
			for done := 0; done < each; {
				pipe := n.rdb.Pipeline()
				batch := min(each-done, max(1, 1<<20/value))
				for range batch {
					for i := 0; i+8 <= len(buf); i += 8 {
						v := r.Uint64()
						for j := range 8 {
							buf[i+j] = byte(v >> (8 * j))
						}
					}
					pipe.Set(context.Background(), fmt.Sprintf("%s:%d:%d", prefix, c, done), string(buf), 0)
					done++
				}
				if _, err := pipe.Exec(context.Background()); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	wg.Wait()
	select {
	case err := <-errs:
		n.t.Fatalf("%s: filling %d bytes: %v", n.name, bytes, err)
	default:
	}
}

package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
)

// batchEvery is how often the writer sends its share of the rate.
const batchEvery = 20 * time.Millisecond

// writer writes a data set that a person recognises, at a paced rate, and counts what the primary has confirmed.
type writer struct {
	conn      *client.Conn
	perBatch  atomic.Int64
	confirmed atomic.Int64
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	failed    chan error // capacity 1
}

// startWriter writes perSecond commands a second until stop or an error.
func startWriter(ctx context.Context, addr string, perSecond int) (*writer, error) {
	ctx, cancel := context.WithCancel(ctx)
	conn, err := client.Dial(ctx, addr)
	if err != nil {
		cancel()
		return nil, err
	}
	w := &writer{conn: conn, cancel: cancel, failed: make(chan error, 1)}
	w.pace(perSecond)
	// startWriter starts the one goroutine that uses the connection. It ends with ctx or an error; stop waits for it.
	w.wg.Go(func() {
		if err := w.run(ctx); err != nil && ctx.Err() == nil {
			w.failed <- err
		}
	})
	return w, nil
}

// pace changes the rate. 0 holds the writer.
func (w *writer) pace(perSecond int) {
	w.perBatch.Store(int64(perSecond) * int64(batchEvery) / int64(time.Second))
}

func (w *writer) run(ctx context.Context) error {
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		batch := int(w.perBatch.Load())
		for range batch {
			w.conn.Queue(command(n)...)
			n++
		}
		if batch == 0 {
			continue
		}
		if err := w.conn.Flush(nil); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
		w.confirmed.Add(int64(batch))
	}
}

func (w *writer) stop() {
	w.cancel()
	w.wg.Wait()
	w.conn.Close()
}

var (
	names  = []string{"Ada", "Grace", "Edsger", "Barbara", "Leslie", "Radia", "Tony", "Frances", "Donald", "Katherine"}
	cities = []string{"Turin", "Oslo", "Lima", "Kyoto", "Accra", "Quito", "Perth", "Izmir"}
)

// command is the n-th write. Of a hundred, 67 make a new user, and the rest are counters, keys that expire soon and
// late, several keys at once, text that grows, binary data, deletions, and now and then a larger value.
func command(n int) []string {
	user := fmt.Sprintf("user:%07d", n)
	switch n % 100 {
	case 3, 23, 43, 63, 83:
		return []string{"INCR", fmt.Sprintf("visits:page:%d", n%997)}
	case 7, 27, 47, 67, 87:
		return []string{"SET", fmt.Sprintf("session:%d", n), "signed in", "EX", "3600"}
	case 11, 51:
		return []string{"SET", fmt.Sprintf("otp:%d", n), "271828", "PX", "4000"}
	case 13, 33, 53, 73, 93:
		order := fmt.Sprintf("{order:%d}", n)
		return []string{"MSET", order + ":item", "lamp", order + ":price", "42.50"}
	case 17, 37, 57, 77, 97:
		return []string{"APPEND", fmt.Sprintf("diary:%d", n%499), fmt.Sprintf("entry %d. ", n)}
	case 19, 39, 59, 79, 99:
		return []string{"DEL", fmt.Sprintf("user:%07d", n/2)}
	case 21, 61:
		return []string{"SETRANGE", fmt.Sprintf("bitmap:%d", n%64), fmt.Sprint(n % 4096), "\x00\xff\x10"}
	case 25, 65:
		return []string{"INCRBYFLOAT", fmt.Sprintf("balance:%d", n%211), "0.25"}
	case 31:
		return []string{"PEXPIRE", fmt.Sprintf("user:%07d", n-1), "600000"}
	case 71:
		return []string{"SET", fmt.Sprintf("photo:%d", n), strings.Repeat(fmt.Sprintf("pixels of %d ", n), 2000)}
	}
	return []string{"SET", user, fmt.Sprintf(`{"id":%d,"name":"%s","city":"%s"}`, n, names[n%len(names)], cities[n/3%len(cities)])}
}

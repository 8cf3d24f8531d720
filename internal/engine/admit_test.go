package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Apply waits while too much is unflushed, so that memory stays bounded, goes on when the flush does, and gives up its
// waiting when the flush fails.
func TestApplyWaits(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails=", fails), func(t *testing.T) {
			entered, release := make(chan struct{}, 100), make(chan struct{})
			var broken atomic.Bool
			r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{Logged: 1 << 30}, MemTableSize: 256 << 10, BeforeFlush: func() error {
				entered <- struct{}{}
				<-release
				if broken.Load() {
					return errors.New("the log is gone")
				}
				return nil
			}})
			done := make(chan error, 1)
			var applied atomic.Int64
			// The owner, started here; writes five times what may wait, and reports how it ended.
			go func() {
				value := strings.Repeat("v", 1000)
				for i := range 5 * stopMemTables * 256 {
					r.set(fmt.Sprint("k", i), value)
					if i%8 == 7 {
						if err := r.apply(r.batch()); err != nil {
							r.begin()
							done <- err
							return
						}
						applied.Add(8)
						r.begin()
					}
				}
				done <- nil
			}()
			<-entered
			eventually(t, "the owner to have filled what may wait", func() bool {
				return applied.Load()*1000 > (stopMemTables-2)*256<<10
			})
			select {
			case err := <-done:
				t.Fatalf("nothing was flushed, and the owner ended: %v", err)
			default:
			}
			broken.Store(fails)
			close(release)
			err := <-done
			if fails != errors.Is(err, ErrStalled) || !fails && err != nil {
				t.Fatalf("the owner ended with %v", err)
			}
			if most := int64(stopMemTables+1) * 256 << 10; fails && applied.Load()*1000 > most {
				t.Fatalf("%d bytes were applied without a flush, want at most %d", applied.Load()*1000, most)
			}
		})
	}
}

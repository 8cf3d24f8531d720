package polite

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestUntilTick(t *testing.T) {
	const every = 100 * time.Millisecond
	for _, tt := range []struct{ now, want time.Duration }{
		{0, every},
		{1, every - 1},
		{every - 1, 1},
		{every, every},
		{12*every + every/4, 3 * every / 4},
		{-1, every}, // a clock of its own
		{-3*every - every/4, every},
	} {
		if got := untilTick(tt.now, every); got != tt.want {
			t.Errorf("at %v: %v, want %v", tt.now, got, tt.want)
		}
	}
}

// TestTickersTickTogether: whenever they begin, tickers tick at the same moments.
func TestTickersTickTogether(t *testing.T) {
	const every = 40 * time.Millisecond
	first := NewTicker(every)
	defer first.Stop()
	<-first.C
	first.Next()
	half := NewTicker(every / 2)
	defer half.Stop()
	<-half.C
	half.Next()
	second := NewTicker(every) // half a period behind a tick of the first
	defer second.Stop()
	together := 0
	for i := 0; together < 3; i++ { // where the machine stands still one of them misses a tick
		a := <-first.C
		first.Next()
		b := <-second.C
		second.Next()
		if d := b.Sub(a); d > -every/8 && d < every/8 {
			together++
		}
		if i == 100 {
			t.Fatalf("%d times of %d they tick together", together, i)
		}
	}
}

// TestTickerInItsOwnTime: within a bubble a ticker ticks once in a period that begins with itself, and neither twice for a tick that was
// received late nor behind Stop.
func TestTickerInItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = time.Second
		begun := time.Now()
		tick := NewTicker(every)
		for i := range 3 {
			<-tick.C
			if at := time.Since(begun); at != time.Duration(i+1)*every {
				t.Errorf("tick %d comes at %v", i, at)
			}
			tick.Next()
		}
		time.Sleep(3 * every)
		<-tick.C
		tick.Next()
		select {
		case <-tick.C:
			t.Error("a tick that was received late comes twice")
		default:
		}
		tick.Stop()
		time.Sleep(3 * every)
		select {
		case <-tick.C:
			t.Error("a tick behind Stop")
		default:
		}
	})
}

package loadgen

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// mirror answers GET with what was SET so long ago.
type mirror struct {
	mu     sync.Mutex
	value  string
	at     time.Time
	behind time.Duration
}

func (m *mirror) set(value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.value, m.at = value, time.Now()
}

func (m *mirror) get() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.at) < m.behind {
		return "$-1\r\n"
	}
	return "$10\r\n" + m.value + "\r\n"
}

// TestLag: the lag is from the reply at the primary to the first GET that finds the value, no less and not much more.
func TestLag(t *testing.T) {
	m := &mirror{behind: 20 * time.Millisecond}
	primary, replica := serve(t, nil), serve(t, func(*server, int64) string { return m.get() })
	primary.onSet(m.set)
	h, err := Lag(t.Context(), primary.addr, replica.addr, time.Millisecond, 400*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if n := h.Count(); n < 3 || n > 20 {
		t.Errorf("%d samples in 400 ms, each of at least 20", n)
	}
	if p50 := h.Quantile(0.5); p50 < 15*time.Millisecond || p50 > 300*time.Millisecond {
		t.Errorf("the lag is %s, want a little more or less than the 20ms of the mirror", p50)
	}
}

func TestLagToldAnError(t *testing.T) {
	primary, replica := serve(t, nil), serve(t, func(*server, int64) string { return "-MASTERDOWN no link\r\n" })
	_, err := Lag(t.Context(), primary.addr, replica.addr, time.Millisecond, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "MASTERDOWN no link") {
		t.Errorf("%v, want the replica's error", err)
	}
}

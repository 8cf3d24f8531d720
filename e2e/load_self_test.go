package e2e

import "testing"

// TestJudge: the judge of acknowledged writes is itself judged, since a blind one would let everything pass.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		acked, sent int
		value       string
		absent      bool
		fine        bool
	}{
		{acked: 3, sent: 3, value: "3:x", fine: true},
		{acked: 3, sent: 3, value: "2:x"},
		{acked: 3, sent: 3, absent: true},
		{acked: 3, sent: 4, value: "4:x", fine: true},
		{acked: 3, sent: 4, value: "5:x"},
		{acked: 8, sent: 9, absent: true, fine: true},
		{acked: 9, sent: 9, absent: true, fine: true},
		{acked: 9, sent: 9, value: "8:x"},
		{acked: 0, sent: 1, absent: true, fine: true},
		{acked: 1, sent: 1, absent: true},
		{acked: 1, sent: 1, value: "no number"},
	} {
		k := &loadKey{name: "k", acked: c.acked, sent: c.sent}
		if err := k.judge(c.value, c.absent); (err == nil) != c.fine {
			t.Errorf("acked %d, sent %d, found %q (absent %t): %v", c.acked, c.sent, c.value, c.absent, err)
		}
	}
}

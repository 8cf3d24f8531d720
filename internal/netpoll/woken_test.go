package netpoll

import "testing"

func TestWoken(t *testing.T) {
	Woken()
	for range 2 {
		if Woken() {
			t.Fatal("nobody was woken")
		}
		Wake()
		Wake()
		if !Woken() {
			t.Fatal("somebody was")
		}
	}
}

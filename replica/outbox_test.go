package replica

import (
	"testing"

	"github.com/understudy-kv/understudy/wire"
)

// The applier's ack may come behind a later one of the reader's: no part of what was acknowledged is taken back.
func TestAcksNeverGoBack(t *testing.T) {
	o := newOutbox()
	o.ack(wire.Ack{Received: 9, Applied: 5, Durable: 3})
	o.ack(wire.Ack{Received: 7, Applied: 6, Durable: 2})
	got, last := o.take(nil)
	if want := wire.AppendAck(nil, wire.Ack{Received: 9, Applied: 6, Durable: 3}); string(got) != string(want) || last {
		t.Fatalf("%x, last %v, want %x", got, last, want)
	}
	if again, _ := o.take(nil); len(again) != 0 {
		t.Fatalf("%x was sent with nothing new", again)
	}
}

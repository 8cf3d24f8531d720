package engine

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestSlot(t *testing.T) {
	if got := crc16([]byte("123456789")); got != 0x31C3 {
		t.Fatalf("crc16 %04x, want 31c3", got)
	}
	for n := range 40 { // eight bytes at once give what single bytes give
		b := bytes.Repeat([]byte("a1\xff\x00z"), 8)[:n]
		var want uint16
		for _, c := range b {
			want = want<<8 ^ crc16Tables[0][byte(want>>8)^c]
		}
		if got := crc16(b); got != want {
			t.Fatalf("crc16 of %d bytes is %04x, want %04x", n, got, want)
		}
	}
	// What CLUSTER KEYSLOT of Redis 7 answers.
	for key, want := range map[string]uint16{
		"": 0, "foo": 12182, "bar": 5061, "123456789": 0x31C3 & 16383, "user1000": 3443,
		"{user1000}.following": 3443, "x{user1000}y{z}": 3443,
		"foo{}{bar}": 8363, "foo{{bar}}zap": 4015, "foo{bar}{zap}": 5061, "{}": 15257, "{": 4092, "}{": 12793, "a{b": 13340,
	} {
		if got := Slot([]byte(key)); got != want {
			t.Errorf("slot of %q is %d, want %d", key, got, want)
		}
	}
}

func TestShardsCoverSlots(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 7, 16, 255, 256} {
		next := 0
		for s := range shards {
			from, to := SlotRange(s, shards)
			if from != next || to <= from {
				t.Fatalf("%d shards: shard %d owns [%d, %d), want it to begin at %d", shards, s, from, to, next)
			}
			for slot := from; slot < to; slot++ {
				if got := ShardOf(uint16(slot), shards); got != s {
					t.Fatalf("%d shards: slot %d is shard %d's, want %d", shards, slot, got, s)
				}
			}
			next = to
		}
		if next != Slots {
			t.Fatalf("%d shards own %d slots", shards, next)
		}
	}
}

// The bytes on disk. A change here needs another layoutVersion.
func TestGoldens(t *testing.T) {
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"position", positionKey, "00706f736974696f6e"},
		{"record foo", AppendDataKey(nil, []byte("foo")), "012f96cfc4ae1d03666f6f00"},
		{"record of the empty key", AppendDataKey(nil, nil), "010000000000000000"},
		{"index foo", AppendIndexKey(nil, 1700000000000, []byte("foo")), "020000018bcfe568002f96cfc4ae1d03666f6f"},
		{"string", AppendRecord(nil, Record{Type: TypeString, Value: []byte("bar")}), "0100626172"},
		{"string with deadline", AppendRecord(nil, Record{Type: TypeString, Deadline: 1700000000000, Value: []byte("bar")}), "01010000018bcfe56800626172"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	// A Pebble that names its formats anew, or a changed layout, must not pass unnoticed: nodes compare this number.
	if Format != 1<<16|24 {
		t.Errorf("format %#x", Format)
	}
	for typ, name := range map[Type]string{0: "none", TypeString: "string", TypeHash: "hash", TypeList: "list", TypeSet: "set", TypeSortedSet: "zset", 9: "type-9"} {
		if typ.String() != name {
			t.Errorf("type %d is %q", typ, typ.String())
		}
	}
}

func TestDecodeWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "key")
		r := Record{
			Type:     Type(rapid.IntRange(1, 255).Draw(t, "type")),
			Deadline: rapid.Int64Range(0, 1<<62).Draw(t, "deadline"),
			Value:    rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
		}
		k, err := DecodeKey(AppendDataKey(nil, key))
		if err != nil || !k.IsRecord() || !bytes.Equal(k.User, key) {
			t.Fatalf("%+v, %v", k, err)
		}
		i, err := DecodeKey(AppendIndexKey(nil, r.Deadline, key))
		if err != nil || i.Kind != KeyIndex || i.Deadline != r.Deadline || !bytes.Equal(i.User, key) || i.IsRecord() {
			t.Fatalf("%+v, %v", i, err)
		}
		got, err := DecodeRecord(AppendRecord(nil, r))
		if err != nil || got.Type != r.Type || got.Deadline != r.Deadline || !bytes.Equal(got.Value, r.Value) {
			t.Fatalf("%+v, %v", got, err)
		}
		// Whatever the bytes are, decoding answers, and what it accepts encodes to the same.
		junk := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "junk")
		if k, err := DecodeKey(junk); err == nil && k.IsRecord() {
			if again := AppendDataKey(nil, k.User); !bytes.Equal(again, junk) && len(again) == len(junk) {
				t.Fatalf("%x decodes as %x", junk, again)
			}
		}
		if r, err := DecodeRecord(junk); err == nil && !bytes.Equal(AppendRecord(nil, r), junk) {
			t.Fatalf("%x decodes as %+v", junk, r)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	for _, s := range []string{
		"", "03", "01", "0100", "012f96cfc4ae1d", "012f96cfc4ae1d04666f6f", "012f96cfc4ae1d03666f6f",
		"012f96cfc4ae1d03666f6f0000", "012f97cfc4ae1d03666f6f00", "012f96cfc4ab9103666f6f00",
		"020000018bcfe568", "02ff00018bcfe568002f96cfc4ae1d03666f6f", "020000018bcfe568002f96cfc4ae1d03666f6f00",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := DecodeKey(b); !errors.Is(err, ErrKey) {
			t.Errorf("%s decodes as %+v, %v", s, k, err)
		}
	}
	for _, s := range []string{"", "01", "0000", "0102", "0101", "010100000000000000", "01010000000000000000", "0101ff00000000000000"} {
		b, _ := hex.DecodeString(s)
		if r, err := DecodeRecord(b); !errors.Is(err, ErrKey) {
			t.Errorf("%s decodes as %+v, %v", s, r, err)
		}
	}
}

// One user key's entries, and one slot's, are contiguous, whatever the other keys are: the layout has room for types
// that are kept in parts.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := AppendDataKey(nil, rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "a"))
		b := AppendDataKey(nil, rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "b"))
		if bytes.Equal(a, b) {
			return
		}
		part := append(append([]byte(nil), a[:len(a)-1]...), SubParts, 'p')
		if bytes.Compare(a, part) >= 0 {
			t.Fatalf("%x is not before its part %x", a, part)
		}
		if bytes.Compare(a, b) != bytes.Compare(part, b) {
			t.Fatalf("%x lies between %x and %x", b, a, part)
		}
	})
}

package loadgen

import "strconv"

// source draws a thread's requests.
type source struct {
	random
	set, get      []byte // a request of each kind, with a zero key and a zero value
	keyAt, getKey int    // where the key's digits begin in them
	valueAt       int
	value         int
	keys          uint64
	gets          uint64 // of 100 requests
	zipf          []uint32
	step          int
	ordered       bool
	first, end    uint64 // of an ordered run: the next key, and the one behind the last
}

func newSource(c *Config, thread int) *source {
	s := &source{random: random(c.Seed*0x9e3779b97f4a7c15 + uint64(thread+1)*0xd1b54a32d192ed03), keys: c.Keys, gets: uint64(c.Gets), value: c.Value}
	s.set = append(s.set, "*3\r\n$3\r\nSET\r\n$"+strconv.Itoa(keyLen)+"\r\n"+Key(0)+"\r\n$"+strconv.Itoa(c.Value)+"\r\n"...)
	s.valueAt = len(s.set)
	s.set = append(append(s.set, make([]byte, c.Value)...), "\r\n"...)
	s.get = append(s.get, "*2\r\n$3\r\nGET\r\n$"+strconv.Itoa(keyLen)+"\r\n"+Key(0)+"\r\n"...)
	s.keyAt = len("*3\r\n$3\r\nSET\r\n$"+strconv.Itoa(keyLen)+"\r\n") + len(keyPrefix)
	s.getKey = s.keyAt
	switch c.Order {
	case Zipf:
		s.zipf = zipfTable(&s.random, c.Keys, zipfSteps)
	case Sequential:
		s.ordered = true
		s.first = c.Keys * uint64(thread) / uint64(c.Threads)
		s.end = c.Keys * uint64(thread+1) / uint64(c.Threads)
	}
	return s
}

// append adds one request to b. It returns false, and nothing, when an ordered run has no key left.
func (s *source) append(b []byte) ([]byte, bool) {
	var key uint64
	switch {
	case s.ordered:
		if s.first == s.end {
			return b, false
		}
		key = s.first
		s.first++
	case s.zipf != nil:
		key = uint64(s.zipf[s.step&(zipfSteps-1)])
		s.step++
	default:
		key = s.below(s.keys)
	}
	at := len(b)
	if s.gets > 0 && (s.gets == 100 || s.below(100) < s.gets) {
		b = append(b, s.get...)
		putDigits(b[at+s.getKey:at+s.getKey+keyDigits], key)
		return b, true
	}
	b = append(b, s.set...)
	putDigits(b[at+s.keyAt:at+s.keyAt+keyDigits], key)
	s.fill(b[at+s.valueAt : at+s.valueAt+s.value])
	return b, true
}

package server

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/keyspace/kstest"
)

var counted = regexp.MustCompile(`\|((?:keyspace_(?:hits|misses)|total_error_replies|errorstat_\w+):[^|]*)`)

func counts(t *testing.T, addr string) string {
	t.Helper()
	var all []string
	for _, m := range counted.FindAllStringSubmatch(rawTo(t, addr, "INFO stats\r\nINFO errorstats"), -1) {
		all = append(all, m[1])
	}
	return strings.Join(all, " ")
}

// Hits, misses and errors are counted as Redis counts them, command by command.
func TestCountersAgainstRedis(t *testing.T) {
	redisAddr := commandtest.StartRedis(t)
	r := start(t, 1, nil)
	for _, send := range []string{
		"SET a 1\r\nGET a\r\nGET nosuch", "MGET a b a", "EXISTS a b c", "TOUCH a b", "TYPE a\r\nTYPE b", "TTL a\r\nPTTL b\r\nEXPIRETIME a",
		"STRLEN a\r\nSTRLEN b", "GETRANGE a 0 1\r\nSUBSTR b 0 1", "SET c 1 GET\r\nSET c 2 GET NX\r\nSET c 3 XX", "GETSET c 4\r\nGETDEL c\r\nGETDEL c\r\nGETEX a",
		"INCR n\r\nAPPEND n 1\r\nSETRANGE n 0 5\r\nDEL n nosuch\r\nEXPIRE a 100\r\nPERSIST a\r\nRENAME a b\r\nRENAME b a", "COPY a z\r\nCOPY b z\r\nMSETNX a 1 q 2",
		"OBJECT ENCODING a\r\nOBJECT ENCODING nosuch", "MULTI\r\nGET a\r\nGET b\r\nINCR nosuch2\r\nEXEC", "GET\r\nFOO\r\nINCR a b", "SET s x\r\nINCR s\r\nSETEX s 0 1",
		"MULTI\r\nINCR s\r\nEXEC", "MULTI\r\nGET\r\nEXEC\r\nEXEC", "HELLO 9", "DBSIZE\r\nKEYS *\r\nSCAN 0\r\nRANDOMKEY", "CONFIG RESETSTAT", "GET a",
	} {
		rawTo(t, r.addr, send)
		rawTo(t, redisAddr, send)
		if got, want := counts(t, r.addr), counts(t, redisAddr); got != want {
			t.Errorf("%q\n got %s\nwant %s", send, got, want)
		}
	}
}

// Counts of shards that are replaced are not lost.
func TestCountersOutliveTheShards(t *testing.T) {
	r := start(t, 3, nil)
	r.raw(t, "SET a 1\r\nMGET a b c")
	r.ks.SetShards(kstest.Shards(t, 2, nil, nil))
	r.raw(t, "GET a")
	if got := counts(t, r.addr); got != "keyspace_hits:1 keyspace_misses:3 total_error_replies:0" {
		t.Errorf("got %s", got)
	}
}

// Who polls INFO over many keys waits for the first count, and from then on has the last one while the next one goes on, which is one at
// a time and seldom.
func TestCountingKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keyCounts
		var done sync.WaitGroup
		counts, running, fails := 0, 0, false
		count := func() (engine.KeyCount, error) { // one at a time, as is seen below
			if counts++; running > 0 {
				t.Error("two counts at a time")
			}
			running++
			time.Sleep(10 * time.Second)
			running--
			if fails {
				return engine.KeyCount{}, errors.New("closed")
			}
			return engine.KeyCount{Keys: int64(counts)}, nil
		}
		ask := func(keys int64, age, took time.Duration) {
			t.Helper()
			begun := time.Now()
			c, old, ok := k.get(&done, count)
			if waited := time.Since(begun); !ok || c.Keys != keys || old != age || waited != took {
				t.Errorf("%d keys, counted %v ago, after %v, %t; want %d, %v, %v", c.Keys, old, waited, ok, keys, age, took)
			}
		}
		fails = true
		if _, _, ok := k.get(&done, count); ok {
			t.Error("a count that failed counts")
		}
		fails = false
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { ask(2, 0, 10*time.Second) })
		}
		both.Wait()
		time.Sleep(199 * time.Second)
		ask(2, 199*time.Second, 0)
		time.Sleep(time.Second)
		ask(2, 200*time.Second+countPatience, countPatience)
		ask(2, 200*time.Second+2*countPatience, countPatience)
		time.Sleep(9400 * time.Millisecond)
		ask(3, 0, 100*time.Millisecond)
		ask(3, 0, 0)
		fails = true
		time.Sleep(200 * time.Second)
		ask(3, 200*time.Second+countPatience, countPatience)
		time.Sleep(10 * time.Second)
		ask(3, 210*time.Second+2*countPatience, countPatience)
		done.Wait()
		if counts != 5 {
			t.Errorf("counted %d times", counts)
		}
	})
}

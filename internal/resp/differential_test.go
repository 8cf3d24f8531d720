package resp_test

import (
	"bufio"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/resp"
)

// What a real Redis says to malformed requests, and how it reads inline commands, is what the parser does: each input is
// an ECHO, so the reply shows the argument.
func TestDifferentialParser(t *testing.T) {
	addr := commandtest.StartRedis(t)
	for _, in := range []string{
		"*x\r\n", "*01\r\n", "*\r\n", "*3000000000\r\n", "*1\r\n+4\r\n", "*1\r\n\r\n", "*1\r\n$-1\r\n", "*1\r\n$536870913\r\n", "*1\r\n$abc\r\n", "*1\r\n$01\r\n",
		"*" + strings.Repeat("1", 70<<10), "*1\r\n$" + strings.Repeat("1", 70<<10), strings.Repeat("a", 70<<10),
		"ECHO \"a\r\n", "ECHO \"a\"b\r\n", "ECHO 'a'b\r\n", "ECHO 'a\r\n",
		"ECHO \"a b\\n\\x41\\\"\\\\\\q\\x4\"\r\n", "ECHO 'a b\\n\\' \"'\r\n", "ECHO \"\"\n", "ECHO a\"b c\"\r\n", "  ECHO\t\tab \r\n", "\r\n\nECHO x\r\n",
		"ECHO a\vb\r\n", "ECHO \va\r\n", "ECHO a\rb\r\n", "*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\n", "*0\r\n*-1\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", "*2\r\n$4\r\nECHOxx$1\r\nyzz",
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(in)); err != nil {
			t.Fatal(err)
		}
		raw, _, err := resp.NewReader(bufio.NewReader(conn)).ReadRaw()
		if err != nil {
			t.Errorf("%.60q: redis: %v", in, err)
			continue
		}
		conn.Close()
		var w resp.Writer
		var p resp.Parser
		p.Feed([]byte(in))
		args, err := p.Next()
		var hard *resp.ProtocolError
		switch {
		case errors.As(err, &hard):
			w.Error("ERR " + hard.Text)
		case err != nil:
			t.Errorf("%.60q: %v", in, err)
		case len(args) != 2:
			w.Error("ERR wrong number of arguments for 'echo' command")
		default:
			w.Bulk(args[1])
		}
		if string(w.Buf) != string(raw) {
			t.Errorf("%.60q\nredis: %.200q\n ours: %.200q", in, raw, w.Buf)
		}
	}
}

package primary

import (
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/netpoll"
)

// userTimeout is how long sent bytes may stay unacknowledged. The link's own limit comes first where a write is stuck, and tells why.
const userTimeout = WriteTimeout + netpoll.WriteStep

// tune has the kernel give up on a peer that leaves sent bytes unacknowledged: a half-open link is noticed although heartbeats
// still fit into the socket's buffer (pitfall 32).
func tune(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
	})
	if err != nil {
		return err
	}
	return set
}

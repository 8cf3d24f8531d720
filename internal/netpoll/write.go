package netpoll

import (
	"errors"
	"net"
	"os"
	"time"
)

// WriteStep is what one wait for room to write counts for at most: what is beyond, this process slept through, or its machine. It is also how
// exactly it is known when the last byte went out.
const WriteStep = time.Second

// WriteAll writes all of b, however long that takes while the other side takes something of it. stuck is more than 0 if it gave up since
// that took nothing for so long: for limit, or for hurry once ended reports true. Whoever makes ended true sets the connection's write
// deadline to hurry from then behind that: of the two the short one holds, whichever comes last.
func WriteAll(conn net.Conn, b []byte, limit, hurry time.Duration, ended func() bool) (stuck time.Duration, err error) {
	step := min(WriteStep, limit)
	for waited := time.Duration(0); ; {
		if err := conn.SetWriteDeadline(time.Now().Add(step)); err != nil {
			return 0, err
		}
		if ended() {
			if err := conn.SetWriteDeadline(time.Now().Add(hurry)); err != nil {
				return 0, err
			}
		}
		n, err := conn.Write(b)
		if b = b[n:]; err == nil {
			return 0, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if ended() {
			return hurry, err
		}
		if waited += step; n > 0 {
			waited = 0
		}
		if waited >= limit {
			return waited, err
		}
	}
}

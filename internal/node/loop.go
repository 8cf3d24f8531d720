package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/understudy-kv/understudy/wire"
)

// loopLimit is how long the question of checkLoop may take. Without an answer the links find out.
const loopLimit = time.Second

// checkLoop asks the node at address whether this one is among those that it gets its data from, before anything is given
// up for it: a primary that were told to follow its own replica would leave nobody to write to. The question is a HELLO
// for a shard that nobody has, which is refused in any case; the code tells the loop from the rest.
func (n *Node) checkLoop(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, loopLimit)
	defer cancel()
	code, text, err := n.ask(ctx, address)
	switch {
	case err != nil:
		n.opts.Logger.Debug("whether following leads back here is not known yet", "address", address, "error", err)
		return nil
	case code == wire.CodeLoop:
		return fmt.Errorf("%w: %s says: %s; promote it first (REPLICAOF NO ONE there), or name another", ErrLoop, address, text)
	}
	return nil
}

func (n *Node) ask(ctx context.Context, address string) (wire.Code, string, error) {
	nonce := n.data.store.Nonce()
	hello := wire.Hello{
		Version: wire.Version, Replica: n.opts.ReplicaID, Nonce: nonce, Node: n.ID(), Cluster: n.opts.Cluster,
		User: n.opts.User, Password: n.opts.Password, Shard: math.MaxUint32,
	}
	f, err := n.exchange(ctx, address, wire.AppendHello(nil, hello))
	if err != nil {
		return "", "", err
	}
	if f.Kind != wire.KindRefuse {
		return "", "", fmt.Errorf("answered by a %s frame", f.Kind)
	}
	r, err := wire.ParseRefusal(f.Kind, f.Payload)
	return r.Code, r.Text, err
}

// exchange sends a frame on a connection of its own and returns the first frame that comes back. ctx must have a deadline.
func (n *Node) exchange(ctx context.Context, address string, frame []byte) (wire.Frame, error) {
	conn, err := n.opts.Dial(ctx, address)
	if err != nil {
		return wire.Frame{}, err
	}
	defer conn.Close()
	f, _, err := converse(ctx, conn, frame)
	return f, err
}

// converse sends a frame and returns the first one that comes back. sent tells whether the other side can have got the
// frame, which it believes only as a whole. ctx must have a deadline; its end before that is obeyed, too.
func converse(ctx context.Context, conn net.Conn, frame []byte) (f wire.Frame, sent bool, err error) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return f, false, err
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })() // fails only on a closed connection
	wrote, err := conn.Write(frame)
	if sent = wrote >= len(frame); err != nil {
		return f, sent, err
	}
	f, err = readFrame(conn)
	return f, sent, err
}

// answerLimit bounds an answer, in bytes.
const answerLimit = 64 << 10

// readFrame reads one control frame.
func readFrame(conn net.Conn) (wire.Frame, error) {
	b := make([]byte, 0, 4096)
	for {
		f, err := wire.ParseFrame(b)
		if !errors.Is(err, wire.ErrShort) {
			return f, err
		}
		if len(b) == cap(b) {
			if len(b) >= answerLimit {
				return f, wire.ErrTooLarge
			}
			b = append(make([]byte, 0, 2*cap(b)), b...)
		}
		got, err := conn.Read(b[len(b):cap(b)])
		if err != nil {
			return f, err
		}
		b = b[:len(b)+got]
	}
}

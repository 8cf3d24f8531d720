package node_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

// mail is the way that a node's questions about a handover take. It loses what it is told to, and counts.
type mail struct {
	mu        sync.Mutex
	refused   bool // take no question
	questions bool // lose questions, which were taken
	answers   bool // lose answers, behind the questions' arrival
	cancels   bool // lose both of questions that take the handover back
	lost      int

	unreachable func(address string) bool
	seen        []wire.Takeover
}

var errLost = errors.New("lost in the mail")

func (m *mail) lose(questions, answers, cancels bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused, m.questions, m.answers, m.cancels, m.lost = false, questions, answers, cancels, 0
}

// cut makes the other nodes unreachable for questions, or reachable again.
func (m *mail) cut(all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unreachable = func(string) bool { return all }
}

func (m *mail) cutTo(address string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unreachable = func(a string) bool { return a == address }
}

func (m *mail) refuse() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused = true
}

func (m *mail) losses() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost
}

func (m *mail) first() wire.Takeover {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[0]
}

func (m *mail) dial(ctx context.Context, address string) (net.Conn, error) {
	m.mu.Lock()
	gone := m.unreachable != nil && m.unreachable(address)
	if gone {
		m.lost++
	}
	m.mu.Unlock()
	if gone { // as with a cable out: silence
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	return &mailed{Conn: c, mail: m}, err
}

// mailed is a connection for one question.
type mailed struct {
	net.Conn
	mail *mail
	lost bool // the question
	drop bool // the answer
}

func (c *mailed) Write(b []byte) (int, error) {
	f, err := wire.ParseFrame(b)
	if err != nil || f.Kind != wire.KindTakeover {
		return c.Conn.Write(b)
	}
	t, err := wire.ParseTakeover(f.Payload)
	if err != nil {
		return 0, err
	}
	if t.Probe {
		return c.Conn.Write(b)
	}
	m := c.mail
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = append(m.seen, t)
	if m.refused {
		m.lost++
		return len(b) - 1, errLost
	}
	if m.questions && !t.Cancel || m.cancels && t.Cancel {
		m.lost++
		c.lost = true
		return len(b), nil
	}
	c.drop = m.answers && !t.Cancel
	return c.Conn.Write(b)
}

func (c *mailed) Read(b []byte) (int, error) {
	if c.lost {
		return 0, errLost
	}
	n, err := c.Conn.Read(b)
	if c.drop && err == nil {
		c.mail.mu.Lock()
		defer c.mail.mu.Unlock()
		c.mail.lost++
		return 0, errLost
	}
	return n, err
}

// primaries are the names of those that are one.
func primaries(members map[string]*member) (names []string) {
	for name, m := range members {
		if m.Role() == store.Primary {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// An old primary that ends in the middle of a handover asks on when it is back: there is one primary in the end, with all that
// was written, and nobody has to say so.
func TestOldPrimaryEndsInAHandover(t *testing.T) {
	for name, c := range map[string]struct {
		lose  func(*mail)
		until func(p, a *member) bool // what has happened when the old primary ends, beside a loss
		down  func(a, b *member)      // what happens while it is down
		again func(*mail)             // what is lost at first when it is back
		want  string
		done  bool // the handover is said to have happened
	}{
		"before it asked": {
			lose: func(m *mail) { m.lose(true, false, false) },
			want: "a", done: true,
		},
		"before it heard": {
			lose:  func(m *mail) { m.lose(false, true, false) },
			until: func(_, a *member) bool { return a.Role() == store.Primary },
			want:  "a", done: true,
		},
		"before it heard, and the target restarts": {
			lose:  func(m *mail) { m.lose(false, true, false) },
			until: func(_, a *member) bool { return a.Role() == store.Primary },
			down:  func(a, _ *member) { a.close(); a.open() },
			want:  "a", done: true,
		},
		"before it asked, and the target follows another node": {
			lose: func(m *mail) { m.lose(true, false, false) },
			down: func(a, b *member) { a.follow(b.ReplicationAddr()) },
			want: "p",
		},
		"before it asked, and taking it back is lost at first": {
			lose:  func(m *mail) { m.lose(true, false, false) },
			down:  func(a, b *member) { a.follow(b.ReplicationAddr()) },
			again: func(m *mail) { m.lose(false, false, true) },
			want:  "p",
		},
		"before it asked, and the target is promoted by hand": {
			lose: func(m *mail) { m.lose(true, false, false) },
			down: func(a, _ *member) { a.promote(); a.do("SET", "by hand", "v") },
			want: "a", done: true,
		},
		"before it asked, and the history goes on at a third node": {
			lose: func(m *mail) { m.lose(true, false, false) },
			down: func(a, b *member) {
				b.promote()
				b.do("SET", "elsewhere", "v")
				a.follow(b.ReplicationAddr())
				same(a.t, b, a)
			},
			want: "b", done: true,
		},
		"before it heard, and the target has handed over to a third node": {
			lose:  func(m *mail) { m.lose(false, true, false) },
			until: func(_, a *member) bool { return a.Role() == store.Primary },
			down: func(a, b *member) {
				b.follow(a.ReplicationAddr())
				b.ready()
				if err := a.Failover(a.t.Context(), node.FailoverRequest{Target: b.ReplicationAddr()}); err != nil {
					a.t.Fatal(err)
				}
				if f := a.over(); f.Result != "done" {
					a.t.Fatalf("%+v", f)
				}
				// And back, so that the target remembers another handover.
				a.ready()
				b.do("SET", "between", "v")
				if err := b.Failover(a.t.Context(), node.FailoverRequest{Target: a.ReplicationAddr()}); err != nil {
					a.t.Fatal(err)
				}
				if f := b.over(); f.Result != "done" {
					a.t.Fatalf("%+v", f)
				}
			},
			want: "a", done: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := openNode(t, "p", "")
			a, b := openNode(t, "a", p.ReplicationAddr()), openNode(t, "b", p.ReplicationAddr())
			a.ready()
			b.ready()
			p.fill("k", 50)
			same(t, p, a, b)
			post := &mail{}
			p.close()
			p.opts.Dial = post.dial
			p.open()
			a.ready()
			b.ready()
			p.fill("more", 50)
			same(t, p, a, b)
			c.lose(post)
			eventually.True(t, patience, "the target is attached", func() bool {
				return p.Failover(t.Context(), node.FailoverRequest{Target: a.ReplicationAddr()}) == nil
			})
			eventually.True(t, patience, "something is lost", func() bool {
				return post.losses() > 0 && (c.until == nil || c.until(p, a))
			})
			if p.Role() != store.Replica {
				t.Fatalf("in the middle of the handover the node is a %s", p.Role())
			}
			p.close()
			if c.down != nil {
				c.down(a, b)
			}
			post.lose(false, false, false)
			if c.again != nil {
				c.again(post)
			}
			p.open()
			if c.again != nil {
				eventually.True(t, patience, "something is lost again", func() bool { return post.losses() > 2 })
				if _, err := p.Do(t.Context(), "SET", "too early", "v"); err == nil {
					t.Error("it writes before the handover is taken back at the target")
				}
				if err := p.Promote(t.Context(), false); !errors.Is(err, node.ErrFailoverRunning) {
					t.Errorf("a promotion meanwhile gave %v", err)
				}
				post.lose(false, false, false)
			}
			if f := p.over(); (f.Result == "done") != c.done {
				t.Fatalf("%+v", f)
			}
			members := map[string]*member{"p": p, "a": a, "b": b}
			if got := primaries(members); !slices.Equal(got, []string{c.want}) {
				t.Fatalf("primaries are %v, want %s", got, c.want)
			}
			one := members[c.want]
			one.do("SET", "after", "v")
			if got := one.do("DBSIZE"); got.(int64) < 101 {
				t.Errorf("%v keys, 101 were written at least", got)
			}
			for name, m := range members {
				if name != c.want && m.Primary() != one.ReplicationAddr() {
					m.follow(one.ReplicationAddr())
				}
			}
			same(t, one, p, a, b)
			if n := p.syncs() + a.syncs() + b.syncs(); n != 0 {
				t.Errorf("%d full syncs", n)
			}
			// And it stays so: nothing of the handover is left.
			p.close()
			p.open()
			if got := primaries(members); !slices.Equal(got, []string{c.want}) {
				t.Fatalf("after a restart primaries are %v, want %s", got, c.want)
			}
		})
	}
}

// A handover that was aborted or refused is void at the target: the request, which may still be on its way, comes too late.
func TestDelayedTakeover(t *testing.T) {
	p := openNode(t, "p", "")
	a := openNode(t, "a", p.ReplicationAddr())
	a.ready()
	post := &mail{}
	p.close()
	p.opts.Dial = post.dial
	p.open()
	a.ready()
	p.fill("k", 10)
	same(t, p, a)
	post.lose(true, false, false)
	eventually.True(t, patience, "the target is attached", func() bool {
		return p.Failover(t.Context(), node.FailoverRequest{Target: a.ReplicationAddr()}) == nil
	})
	eventually.True(t, patience, "the question is lost", func() bool { return post.losses() > 0 })
	if err := p.AbortFailover(); err != nil {
		t.Fatal(err)
	}
	if f := p.over(); f.Result == "done" || p.Role() != store.Primary {
		t.Fatalf("%+v, and the node is a %s", f, p.Role())
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			a.close()
			a.open()
			a.ready()
		}
		c, err := net.Dial("tcp", a.ReplicationAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(wire.AppendTakeover(nil, post.first())); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		f, err := wire.ParseFrame(b[:n])
		if err != nil {
			t.Fatal(err)
		}
		if r, err := wire.ParseTakeoverReply(f.Payload); err != nil || r.Outcome != wire.OutcomeVoid {
			t.Errorf("the target said %+v, %v, want void (restarted: %t)", r, err, restarted)
		}
		if a.Role() != store.Replica {
			t.Fatalf("the target is a %s", a.Role())
		}
	}
	p.do("SET", "after", "v")
	same(t, p, a)
	if n := a.syncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
}

// An abort that comes behind the target's promotion changes nothing: the target says so, and there is one primary.
func TestAbortThatComesTooLate(t *testing.T) {
	p := openNode(t, "p", "")
	a := openNode(t, "a", p.ReplicationAddr())
	a.ready()
	post := &mail{}
	p.close()
	p.opts.Dial = post.dial
	p.open()
	a.ready()
	post.lose(false, true, false)
	eventually.True(t, patience, "the target is attached", func() bool {
		return p.Failover(t.Context(), node.FailoverRequest{Target: a.ReplicationAddr()}) == nil
	})
	eventually.True(t, patience, "the answer is lost", func() bool { return post.losses() > 0 })
	if s := p.Status().Failover.State; s != status.FailoverInProgress {
		t.Fatalf("the handover is %s", s)
	}
	if err := p.AbortFailover(); err != nil {
		t.Fatal(err)
	}
	if f := p.over(); f.Result != "done" || p.Role() != store.Replica || a.Role() != store.Primary {
		t.Fatalf("%+v, and the nodes are a %s and a %s", f, p.Role(), a.Role())
	}
	a.do("SET", "after", "v")
	same(t, a, p)
}

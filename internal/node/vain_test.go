package node_test

import "testing"

// A replica that was promoted, got no write, and follows its old primary again has nothing that the primary lacks, though
// the generation that it began is none of the primary's: it resumes, as do the replicas of its own.
func TestPromotionInVain(t *testing.T) {
	p := openNode(t, "p", "")
	p.fill("before", 100)
	a := openNode(t, "a", p.ReplicationAddr())
	b := openNode(t, "b", a.ready())
	same(t, p, a, b)
	a.promote()
	b.ready()
	p.fill("meanwhile", 100)
	a.follow(p.ReplicationAddr())
	same(t, p, a, b)
	a.promote()
	a.promote()
	same(t, a, b)
	for name, m := range map[string]*member{"p": p, "a": a, "b": b} {
		if n := m.syncs(); n != 0 {
			t.Errorf("%s counts %d full syncs", name, n)
		}
	}
}

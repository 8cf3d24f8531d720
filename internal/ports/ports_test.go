package ports

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
)

func TestFreeRangeCanBeListenedOn(t *testing.T) {
	base, err := Free("127.0.0.1", 4, 0, 10000)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []int{base, base + 3, base + 10000, base + 10003} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Errorf("port %d: %v", port, err)
			continue
		}
		defer l.Close()
	}
}

func TestFreeSkipsARangeWithOneTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if _, err := probe("127.0.0.1", port-1, 2, []int{0}); err == nil {
		t.Errorf("a range with the taken port %d counts as free", port)
	}
}

func TestFreeRefusesWhatCannotBe(t *testing.T) {
	for _, c := range []struct {
		n       int
		offsets []int
	}{{0, nil}, {70000, nil}, {4, []int{60000}}} {
		if _, err := Free("127.0.0.1", c.n, c.offsets...); err == nil || !strings.Contains(err.Error(), "in a row") {
			t.Errorf("Free(%d, %v) = %v, want an error", c.n, c.offsets, err)
		}
	}
}

func TestReservedPortsAreNotGivenOut(t *testing.T) {
	base, release, err := Reserve("127.0.0.1", 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := probe("127.0.0.1", base+2, 2, []int{0}); err == nil {
		t.Error("a reserved port counts as free")
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+1)))
	if err != nil {
		t.Fatalf("the owner of a reserved port cannot listen on it: %v", err)
	}
	if err := errors.Join(l.Close(), release()); err != nil {
		t.Fatal(err)
	}
	h, err := probe("127.0.0.1", base, 3, []int{0})
	if err != nil {
		t.Fatalf("released ports are not free: %v", err)
	}
	if err := h.release(); err != nil {
		t.Fatal(err)
	}
}

package polite

import (
	"runtime"
	"testing"
)

// While somebody hurries there is a processor more for each goroutine that keeps one, in whichever order they come and go.
func TestHurry(t *testing.T) {
	machine := 4
	before := runtime.GOMAXPROCS(machine)
	t.Setenv("GOMAXPROCS", "4")
	defer runtime.GOMAXPROCS(before)
	want := func(n int, when string) {
		t.Helper()
		if got := runtime.GOMAXPROCS(0); got != n {
			t.Errorf("%s: %d processors, want %d", when, got, n)
		}
		if got := Processors(); got != machine {
			t.Errorf("%s: Processors() = %d, want %d", when, got, machine)
		}
	}
	done := Hurry()
	want(4, "nobody keeps one")
	left := Keep(func() {})
	want(5, "one keeps one")
	left2, done2 := Keep(func() {}), Hurry()
	want(6, "two keep one each, two hurry")
	done()
	done()
	want(6, "one still hurries")
	left()
	want(5, "one keeps one still")
	done2()
	want(4, "nobody hurries")
	done = Hurry()
	want(5, "somebody hurries again")
	left2()
	want(4, "nobody keeps one any more")
	done()
	want(4, "nobody does anything")

	// Where there are no more processors than who would keep one, nobody does.
	machine = 1
	runtime.GOMAXPROCS(machine)
	defer Keep(func() {})()
	defer Hurry()()
	want(1, "a single processor")
}

// Who has not said how many processors there are to be has as many as there are afterwards.
func TestHurryGivesBack(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	runtime.SetDefaultGOMAXPROCS()
	machine := runtime.GOMAXPROCS(0)
	if machine < 2 {
		t.Skip("one processor: nobody keeps it")
	}
	release := Keep(func() {})
	defer release()
	done := Hurry()
	if got := runtime.GOMAXPROCS(0); got != machine+1 {
		t.Errorf("%d processors, want %d", got, machine+1)
	}
	done()
	if got := runtime.GOMAXPROCS(0); got != machine {
		t.Errorf("%d processors, want %d again", got, machine)
	}
}

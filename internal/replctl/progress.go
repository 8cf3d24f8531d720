package replctl

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
)

const barWidth = 40

// progressBar draws a bar on a terminal, and nothing elsewhere.
type progressBar struct {
	w     io.Writer // nil: nothing is drawn
	drawn time.Time
}

func newProgressBar(w io.Writer) *progressBar {
	if f, ok := w.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		return &progressBar{w: w}
	}
	return &progressBar{}
}

// show draws how much is done, from 0 to 1, at most ten times a second.
func (b *progressBar) show(done float64) {
	if b.w == nil || time.Since(b.drawn) < 100*time.Millisecond {
		return
	}
	b.drawn = time.Now()
	full := min(barWidth, max(0, int(done*barWidth)))
	fmt.Fprintf(b.w, "\r[%s%s] %3.0f %%", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), done*100)
}

// clear makes room for the result.
func (b *progressBar) clear() {
	if b.w != nil {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}

package bench

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// number writes a figure for people: three significant digits, and k or M for what is large.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	case a >= 999.5e3:
		return digits(v/1e6) + "M"
	case a >= 9995:
		return digits(v/1e3) + "k"
	default:
		return digits(v)
	}
}

func digits(v float64) string {
	decimals := 0
	switch a := math.Abs(v); {
	case a == math.Trunc(a) && a < 1000:
	case a < 9.995:
		decimals = 2
	case a < 99.95:
		decimals = 1
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// spread is the lowest and the highest of several values.
func spread(list []float64) string {
	if len(list) < 2 {
		return ""
	}
	lo, hi := list[0], list[0]
	for _, v := range list {
		lo, hi = min(lo, v), max(hi, v)
	}
	return " (" + number(lo) + "–" + number(hi) + ")"
}

// shown are the systems that any row has.
func shown(systems []string, rows []Row) (list []string) {
	for _, s := range systems {
		if s == ours || slices.ContainsFunc(rows, func(r Row) bool {
			return slices.ContainsFunc(r.Peers, func(p PeerValue) bool { return p.Peer == s })
		}) {
			list = append(list, s)
		}
	}
	return list
}

// table writes the rows: a column for each system with its median, and for each peer the median of the ratios with their
// spread, the target and its verdict.
func table(systems []string, rows []Row) string {
	peers := []string{}
	for _, s := range systems {
		if s != ours {
			peers = append(peers, s)
		}
	}
	head := []string{"", "figure", "unit", ours}
	for _, p := range peers {
		head = append(head, p, ours+" / "+p)
	}
	grid := [][]string{append(head, "targets")}
	last := ""
	for _, r := range rows {
		line := []string{"", r.Figure, r.Unit, number(r.Ours.Median) + spread(r.Ours.Runs)}
		if r.Scenario != last {
			line[0], last = r.Scenario, r.Scenario
		}
		var targets []string
		if r.Target != "" {
			targets = append(targets, r.Target+" "+r.Verdict)
		}
		for _, p := range peers {
			value, ratio := "", ""
			for _, v := range r.Peers {
				if v.Peer != p {
					continue
				}
				value = number(v.Value.Median)
				if v.Ratio != nil {
					ratio = number(v.Ratio.Median) + spread(v.Ratio.Runs)
				}
				if v.Target != "" {
					targets = append(targets, fmt.Sprintf("%s: %s %s", p, v.Target, v.Verdict))
				}
			}
			line = append(line, value, ratio)
		}
		grid = append(grid, append(line, strings.Join(targets, "; ")))
	}
	return align(grid)
}

// align pads the cells of a grid to columns: text to the left, and nothing behind the last.
func align(grid [][]string) string {
	var widths []int
	for _, line := range grid {
		for i, cell := range line {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, line := range grid {
		text := ""
		for i, cell := range line {
			text += cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	return b.String()
}

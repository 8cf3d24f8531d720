package bench

import "slices"

// A Row is one figure of the report.
type Row struct {
	Scenario string      `json:"scenario"`
	Figure   string      `json:"figure"`
	Unit     string      `json:"unit"`
	Ours     Series      `json:"ours"`
	Peers    []PeerValue `json:"peers,omitempty"`
	Target   string      `json:"target,omitempty"` // for the value itself
	Verdict  string      `json:"verdict,omitempty"`
}

// A Series is a figure over the runs.
type Series struct {
	Median float64   `json:"median"`
	Runs   []float64 `json:"runs"`
}

// PeerValue is the same figure of another system, and ours over it.
type PeerValue struct {
	Peer    string  `json:"peer"`
	Value   Series  `json:"value"`
	Ratio   *Series `json:"ratio,omitempty"`
	Target  string  `json:"target,omitempty"` // for the ratio
	Verdict string  `json:"verdict,omitempty"`
}

// Verdicts of a target.
const (
	Met    = "met"
	Missed = "missed"
)

func series(list []float64) Series { return Series{median(list), list} }

func verdict(met bool) string {
	if met {
		return Met
	}
	return Missed
}

// judge makes the rows: every figure that ours has, in the order in which it was measured, beside its peers' and its targets.
func judge(systems []string, measured map[string]*values, targets []target) []Row {
	var rows []Row
	own := measured[ours]
	if own == nil {
		return nil
	}
	for _, f := range own.order {
		row := Row{Scenario: f.scenario, Figure: f.name, Unit: f.unit, Ours: series(own.all(f))}
		for _, system := range systems {
			if system == ours {
				if i := find(targets, f, ""); i >= 0 {
					row.Target, row.Verdict = targets[i].String(), verdict(targets[i].met(row.Ours.Median))
				}
				continue
			}
			v := measured[system]
			if v == nil || len(v.all(f)) == 0 {
				continue
			}
			p := PeerValue{Peer: system, Value: series(v.all(f))}
			if list := ratios(own, v, f); len(list) > 0 {
				r := series(list)
				p.Ratio = &r
				if i := find(targets, f, system); i >= 0 {
					p.Target, p.Verdict = targets[i].String(), verdict(targets[i].met(r.Median))
				}
			}
			row.Peers = append(row.Peers, p)
		}
		rows = append(rows, row)
	}
	return rows
}

func find(targets []target, f figure, peer string) int {
	return slices.IndexFunc(targets, func(t target) bool { return t.scenario == f.scenario && t.name == f.name && t.peer == peer })
}

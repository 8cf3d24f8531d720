package shard

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/wire"
)

const (
	manifestName   = "MANIFEST"
	manifestFormat = 1
)

// manifest says which directories hold the shard and which history that is. It is replaced as a whole.
type manifest struct {
	Format  int      `json:"format"`
	Shard   int      `json:"shard"`
	Number  int      `json:"number"` // of the current engine-N and log-N; the next ones take a higher one
	Engine  string   `json:"engine"`
	Log     string   `json:"log"`
	Lineage []string `json:"lineage"`           // "generation@first", oldest first
	BootID  string   `json:"boot_id"`           // of the kernel under which the log was last opened
	Clean   bool     `json:"clean"`             // the last run stopped cleanly
	Weakest Fsync    `json:"weakest"`           // the weakest fsync policy of the last run
	Follows bool     `json:"follows"`           // the last run took its frames from a primary
	Settles string   `json:"settles,omitempty"` // "generation@offset" from which on the data is whole; absent if it is
	Updated string   `json:"updated"`           // for people
}

func (m manifest) lineage() (wire.Lineage, error) {
	var l wire.Lineage
	for _, s := range m.Lineage {
		p, err := parsePlace(s)
		if err != nil {
			return nil, fmt.Errorf("lineage entry %w", err)
		}
		l = append(l, wire.Epoch{Generation: p.Generation, First: p.Offset})
	}
	return l, l.Validate()
}

// settles is from where on the data is whole; nil if it is.
func (m manifest) settles() (*wire.Position, error) {
	if m.Settles == "" {
		return nil, nil
	}
	p, err := parsePlace(m.Settles)
	if err != nil {
		return nil, fmt.Errorf("settles: %w", err)
	}
	return &p, nil
}

func (m *manifest) setSettles(p *wire.Position) {
	if m.Settles = ""; p != nil {
		m.Settles = fmt.Sprintf("%s@%d", p.Generation, p.Offset)
	}
}

// parsePlace reads "generation@offset".
func parsePlace(s string) (p wire.Position, err error) {
	gen, offset, ok := strings.Cut(s, "@")
	if p.Generation, err = wire.ParseGeneration(gen); err == nil {
		p.Offset, err = strconv.ParseUint(offset, 10, 64)
	}
	if !ok || err != nil {
		return p, fmt.Errorf("%q is not generation@offset", s)
	}
	return p, nil
}

func (m *manifest) setLineage(l wire.Lineage) {
	m.Lineage = LineageStrings(l)
}

// LineageStrings gives "generation@first" for every epoch, oldest first.
func LineageStrings(l wire.Lineage) []string {
	out := make([]string, len(l))
	for i, e := range l {
		out[i] = fmt.Sprintf("%s@%d", e.Generation, e.First)
	}
	return out
}

// Exists reports whether there is a shard in the directory.
func Exists(fs vfs.FS, dir string) (bool, error) {
	_, found, err := readManifest(fs, dir)
	return found, err
}

func readManifest(fs vfs.FS, dir string) (m manifest, found bool, err error) {
	b, err := safefile.Read(fs, dir, manifestName)
	if errors.Is(err, os.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, false, fmt.Errorf("%s: %w", fs.PathJoin(dir, manifestName), err)
	}
	if m.Format != manifestFormat {
		return m, false, fmt.Errorf("%s has format %d, this version reads %d: run the version that wrote it", fs.PathJoin(dir, manifestName), m.Format, manifestFormat)
	}
	return m, true, nil
}

func writeManifest(fs vfs.FS, dir string, m manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return safefile.Write(fs, dir, manifestName, b)
}

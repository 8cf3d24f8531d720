package primary

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

const (
	slotsFile   = "slots.json"
	slotsFormat = 1
)

type savedSlots struct {
	Format int         `json:"format"`
	Slots  []savedSlot `json:"slots"`
}

type savedSlot struct {
	Replica    string `json:"replica"`
	Shard      int    `json:"shard"`
	Address    string `json:"address"`
	Announce   string `json:"announce,omitempty"`
	Base       string `json:"announce_base,omitempty"`
	Generation string `json:"generation"`
	Acked      bool   `json:"acked"`
	Received   uint64 `json:"received"`
	Applied    uint64 `json:"applied"`
	Durable    uint64 `json:"durable"`
	Need       uint64 `json:"need"`
	Settles    uint64 `json:"settles,omitempty"`
	Syncing    bool   `json:"syncing,omitempty"`
	Start      uint64 `json:"start,omitempty"`
	Snapshot   string `json:"snapshot,omitempty"`
}

// saveSlots replaces slots.json.
func saveSlots(fs vfs.FS, dir string, records []slottable.Record) error {
	out := savedSlots{Format: slotsFormat, Slots: make([]savedSlot, len(records))}
	for i, r := range records {
		out.Slots[i] = savedSlot{
			Replica: r.Replica.String(), Shard: r.Shard, Address: r.Address, Announce: r.Announce,
			Generation: r.Generation.String(), Acked: r.Acked, Received: r.Ack.Received, Applied: r.Ack.Applied,
			Durable: r.Ack.Durable, Need: r.Need, Syncing: r.Syncing, Start: r.Start, Snapshot: r.Snapshot.String(), Base: r.AnnounceBase, Settles: r.Settles,
		}
	}
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		return err
	}
	return safefile.Write(fs, dir, slotsFile, b)
}

// loadSlots reads slots.json. There is none before the first replica came.
func loadSlots(fs vfs.FS, dir string) ([]slottable.Record, error) {
	b, err := safefile.Read(fs, dir, slotsFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var in savedSlots
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("%s: %w", slotsFile, err)
	}
	if in.Format != slotsFormat {
		return nil, fmt.Errorf("%s has format %d, this version reads %d", slotsFile, in.Format, slotsFormat)
	}
	records := make([]slottable.Record, len(in.Slots))
	for i, s := range in.Slots {
		r := slottable.Record{
			Shard: s.Shard, Address: s.Address, Announce: s.Announce, Acked: s.Acked,
			Ack: wire.Ack{Received: s.Received, Applied: s.Applied, Durable: s.Durable}, Need: s.Need, Syncing: s.Syncing, Start: s.Start,
			AnnounceBase: s.Base, Settles: s.Settles,
		}
		var errs [3]error
		r.Replica, errs[0] = parseID(s.Replica)
		r.Generation, errs[1] = wire.ParseGeneration(s.Generation)
		r.Snapshot, errs[2] = parseID(s.Snapshot)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("%s: slot %d: %w", slotsFile, i, err)
		}
		records[i] = r
	}
	return records, nil
}

// parseID reads an ID, with or without dashes; the zero one too.
func parseID(s string) (id wire.ID, err error) {
	plain := strings.ReplaceAll(s, "-", "")
	if len(plain) != 2*len(id) {
		return id, fmt.Errorf("%q is not an identity of 32 hex digits", s)
	}
	_, err = hex.Decode(id[:], []byte(plain))
	return id, err
}

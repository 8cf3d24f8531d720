package command

import (
	_ "embed"
	"encoding/json"
	"sync"

	"github.com/understudy-kv/understudy/internal/resp"
)

//go:embed docs.json
var docsJSON []byte

// docEntry is what COMMAND DOCS says of a command.
type docEntry struct {
	Summary         string      `json:"summary"`
	Since           string      `json:"since"`
	Group           string      `json:"group"`
	Complexity      string      `json:"complexity"`
	DocFlags        []string    `json:"doc_flags"`
	DeprecatedSince string      `json:"deprecated_since"`
	ReplacedBy      string      `json:"replaced_by"`
	History         [][2]string `json:"history"`
	Arguments       []docArg    `json:"arguments"`
}

// docArg is one argument of a command; oneofs and blocks nest.
type docArg struct {
	Name            string   `json:"name"`
	Type            string   `json:"type"`
	KeySpecIndex    *int64   `json:"key_spec_index"`
	Token           *string  `json:"token"`
	Summary         string   `json:"summary"`
	Since           string   `json:"since"`
	DeprecatedSince string   `json:"deprecated_since"`
	Flags           []string `json:"flags"`
	Value           string   `json:"value"`
	Arguments       []docArg `json:"arguments"`
}

var loadDocs = sync.OnceValue(func() map[string]docEntry {
	docs := map[string]docEntry{}
	if err := json.Unmarshal(docsJSON, &docs); err != nil {
		panic("command: docs.json: " + err.Error()) // it is part of the program; a test reads it
	}
	return docs
})

// doc finds a command's documentation, in its row or in docs.json.
func (c *Command) doc() docEntry {
	if c.Summary != "" {
		return docEntry{Summary: c.Summary, Since: c.Since, Group: c.Group, Complexity: c.Complexity}
	}
	return loadDocs()[c.Name]
}

// fields collects the pairs of a map, so that their number is known before they are written.
type fields struct {
	n    int
	body resp.Writer
}

func (f *fields) add(name string) *resp.Writer {
	f.n++
	f.body.BulkString(name)
	return &f.body
}

func (f *fields) text(name, value string) {
	if value != "" {
		f.add(name).BulkString(value)
	}
}

func (f *fields) set(name string, values []string) {
	if len(values) > 0 {
		replyStatuses(f.add(name), values)
	}
}

func (f *fields) writeTo(w *resp.Writer) {
	w.Map(f.n)
	w.Buf = append(w.Buf, f.body.Buf...)
}

// replyDocs writes a command's name and its documentation.
func replyDocs(w *resp.Writer, c *Command) {
	w.BulkString(c.Name)
	d := c.doc()
	f := fields{body: resp.Writer{Proto: w.Proto}}
	f.text("summary", d.Summary)
	f.text("since", d.Since)
	f.text("group", d.Group)
	f.text("complexity", d.Complexity)
	f.set("doc_flags", d.DocFlags)
	f.text("deprecated_since", d.DeprecatedSince)
	f.text("replaced_by", d.ReplacedBy)
	if len(d.History) > 0 {
		b := f.add("history")
		b.Set(len(d.History))
		for _, h := range d.History {
			b.Array(2)
			b.BulkString(h[0])
			b.BulkString(h[1])
		}
	}
	if len(d.Arguments) > 0 {
		replyDocArgs(f.add("arguments"), d.Arguments)
	}
	if len(c.Sub) > 0 {
		b := f.add("subcommands")
		b.Map(len(c.Sub))
		for _, s := range c.Sub {
			replyDocs(b, s)
		}
	}
	f.writeTo(w)
}

func replyDocArgs(w *resp.Writer, args []docArg) {
	w.Array(len(args))
	for _, a := range args {
		f := fields{body: resp.Writer{Proto: w.Proto}}
		f.text("name", a.Name)
		f.text("type", a.Type)
		if a.KeySpecIndex != nil {
			f.add("key_spec_index").Int(*a.KeySpecIndex)
		}
		if a.Token != nil {
			f.add("token").BulkString(*a.Token)
		}
		f.text("summary", a.Summary)
		f.text("since", a.Since)
		f.text("deprecated_since", a.DeprecatedSince)
		f.set("flags", a.Flags)
		f.text("value", a.Value)
		if len(a.Arguments) > 0 {
			replyDocArgs(f.add("arguments"), a.Arguments)
		}
		f.writeTo(w)
	}
}

package wire_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/wire"
)

const protocolDoc = "../docs/protocol.md"

// TestProtocolDoc: what stands between "<!-- generated: X -->" and "<!-- end -->" in docs/protocol.md is made from the
// constants and the golden vectors, so the document cannot say other bytes than the code.
func TestProtocolDoc(t *testing.T) {
	text, err := os.ReadFile(protocolDoc)
	mustEqual(t, err, nil)
	blocks := docBlocks(t)
	used := map[string]bool{}
	const begin, end = "<!-- generated: ", "<!-- end -->"
	var out strings.Builder
	for rest := string(text); ; {
		before, after, found := strings.Cut(rest, begin)
		out.WriteString(before)
		if !found {
			break
		}
		name, after, _ := strings.Cut(after, " -->\n")
		_, after, found = strings.Cut(after, end)
		if !found {
			t.Fatalf("%s: the generated part %q has no end", protocolDoc, name)
		}
		block, ok := blocks[name]
		if !ok {
			t.Fatalf("%s: nothing generates %q", protocolDoc, name)
		}
		used[name] = true
		fmt.Fprintf(&out, "%s%s -->\n%s%s", begin, name, block, end)
		rest = after
	}
	golden(t, protocolDoc, out.String())
	// Each reason and each code has a row in a table; the bytes of one of them show the form.
	for name := range blocks {
		if !used[name] && !strings.HasPrefix(name, "vector fullsync-") && !strings.HasPrefix(name, "vector refuse-") && !strings.HasPrefix(name, "vector bye-") &&
			!strings.HasPrefix(name, "vector takeover-reply-") {
			t.Errorf("%s does not show %q", protocolDoc, name)
		}
	}
}

func docBlocks(t tb) map[string]string {
	blocks := map[string]string{}
	refusals := map[string]bool{}
	for _, v := range vectors() {
		file, err := os.ReadFile(filepath.Join("testdata", "vectors", v.name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		blocks["vector "+v.name] = "```\n" + string(file) + "```\n"
		if code, ok := strings.CutPrefix(v.name, "refuse-"); ok {
			refusals[code] = true
		}
	}
	table := func(name, heads string) func(cells ...string) {
		blocks[name] = "| " + heads + " |\n|" + strings.Repeat("---|", strings.Count(heads, "|")+1) + "\n"
		return func(cells ...string) { blocks[name] += "| " + strings.Join(cells, " | ") + " |\n" }
	}
	kinds, ops := table("kinds", "kind | name | payload"), table("operations", "op | name | bytes")
	fields, reasons := table("fields", "tag | name | value"), table("reasons", "reason | meaning")
	refuse, bye := table("refuse codes", "code | meaning"), table("bye codes", "code | meaning")
	outcomes, capabilities := table("outcomes", "outcome | meaning"), table("capabilities", "bit | name | meaning")
	limits := table("limits", "constant | value | meaning")
	for _, c := range exportedConstants(t) {
		n, _ := strconv.Atoi(c.value)
		comment := strings.TrimPrefix(c.comment, c.name+" is ")
		if layout, rest, _ := strings.Cut(comment, "; "); strings.Contains(layout, ":") && c.typ != "untyped int" {
			comment = "`" + layout + "`" + strings.TrimSuffix("; "+rest, "; ")
		}
		switch {
		case c.name == "KindOptional" || c.name == "FieldRequired":
			limits(c.name, fmt.Sprintf("%#x", n), "see above")
		case c.typ == "Kind":
			kinds(fmt.Sprintf("`%#02x`", n), wire.Kind(n).String(), comment)
		case c.typ == "OpKind":
			ops(c.value, wire.OpKind(n).String(), comment)
		case c.typ == "Field":
			fields(c.value, fieldKinds[wire.Field(n)].name, comment)
		case strings.HasPrefix(c.name, "Cap"):
			capabilities(fmt.Sprintf("`%#x`", n), c.name, strings.NewReplacer("[Hello].Capabilities", "`capabilities`", "[KindRewind]", "`rewind`").Replace(comment))
		case c.typ == "Outcome":
			outcomes(strings.ReplaceAll(c.value, `"`, "`"), comment)
		case c.typ == "Reason":
			reasons(strings.ReplaceAll(c.value, `"`, "`"), comment)
		case c.typ == "Code" && refusals[strings.Trim(c.value, `"`)]:
			refuse(strings.ReplaceAll(c.value, `"`, "`"), comment)
		case c.typ == "Code":
			bye(strings.ReplaceAll(c.value, `"`, "`"), comment)
		default:
			limits(c.name, c.value, comment)
		}
	}
	return blocks
}

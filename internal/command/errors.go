package command

import (
	"bytes"
	"strings"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

// Limits of what is stored, in bytes.
const (
	// MaxKey is the longest key.
	MaxKey = engine.MaxKey
	// MaxValue is the longest string value: Redis's proto-max-bulk-len.
	MaxValue = resp.MaxBulk
	// MaxReply is the most that one command, or one transaction, replies.
	MaxReply = 1 << 30
)

// The error replies. All but the key's limit, which Redis does not have, are Redis's.
const (
	errSyntax       = "ERR syntax error"
	errWrongType    = "WRONGTYPE Operation against a key holding the wrong kind of value"
	errNotInteger   = "ERR value is not an integer or out of range"
	errNotFloat     = "ERR value is not a valid float"
	errOverflow     = "ERR increment or decrement would overflow"
	errDecrOverflow = "ERR decrement would overflow"
	errNaN          = "ERR increment would produce NaN or Infinity"
	errOffset       = "ERR offset is out of range"
	errTooLong      = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
	errNoKey        = "ERR no such key"
	errSameObject   = "ERR source and destination objects are the same"
	errDBRange      = "ERR DB index is out of range"
	errIntRange     = "ERR value is out of range, value must between -2147483648 and 2147483647"
	errNXAndOthers  = "ERR NX and XX, GT or LT options at the same time are not compatible"
	errGTAndLT      = "ERR GT and LT options at the same time are not compatible"
	errNoFreq       = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust."
	errKeyTooLong   = "ERR key is longer than 65536 bytes, the limit of this server"
)

func errExpireTime(c *Ctx) string {
	return "ERR invalid expire time in '" + Lookup(c.Args[0]).Name + "' command"
}

// ErrReplyTooLarge is the reply in place of one over MaxReply. Redis has no such limit.
const ErrReplyTooLarge = "ERR the reply would be over 1 GiB: ask for less at once"

// WrongArity is the reply to a call of the command with a wrong number of arguments.
func WrongArity(name string) string {
	return "ERR wrong number of arguments for '" + name + "' command"
}

// preview is as much of s as Redis quotes: up to n bytes, and none from the first NUL on.
func preview(s []byte, n int) []byte {
	s = s[:min(len(s), n)]
	if i := bytes.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	return s
}

// UnknownCommand is the reply to a command that is not in the table. It quotes the first 128 bytes of the name, and of the arguments each as far as 128 bytes of them all go.
func UnknownCommand(args [][]byte) string {
	var quoted strings.Builder
	for _, a := range args[1:] {
		if quoted.Len() >= 128 {
			break
		}
		n := 128 - quoted.Len()
		quoted.WriteByte('\'')
		quoted.Write(preview(a, n))
		quoted.WriteString("' ")
	}
	return "ERR unknown command '" + string(preview(args[0], 128)) + "', with args beginning with: " + quoted.String()
}

// UnknownSubcommand is the reply to a container's subcommand that is not in the table.
func UnknownSubcommand(args [][]byte) string {
	return "ERR unknown subcommand '" + string(preview(args[1], 128)) + "'. Try " + strings.ToUpper(string(args[0])) + " HELP."
}

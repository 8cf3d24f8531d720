package resp

import "bytes"

// inline parses a command typed as a line: words separated by blanks, with Redis's quoting. It returns no arguments
// for an empty line. Words are unquoted in place: that never makes them longer.
func (p *Parser) inline() ([][]byte, error) {
	rest := p.buf[p.at:]
	n := bytes.IndexByte(rest[:min(len(rest), MaxLine+1)], '\n')
	if n < 0 {
		if len(rest) > MaxLine {
			return nil, protocolError("too big inline request")
		}
		return nil, ErrShort
	}
	line := rest[:n]
	if n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	p.at += n + 1
	p.start = p.at
	first := len(p.args)
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			break
		}
		word, next, ok := unquote(line, i)
		if !ok {
			return nil, protocolError("unbalanced quotes in request")
		}
		p.args = append(p.args, word)
		i = next
	}
	return p.args[first:len(p.args):len(p.args)], nil
}

// isSpace is C's isspace.
func isSpace(c byte) bool { return c == ' ' || (c >= '\t' && c <= '\r') }

// unquote takes the word that begins at line[i] and returns it and where the next one may begin. As in Redis's
// sdssplitargs, quotes may begin within a word, and a closing quote must end it; "…" knows \n \r \t \b \a, \xHH and a
// backslash before any other byte, '…' knows \' only.
func unquote(line []byte, i int) (word []byte, next int, ok bool) {
	from, to := i, i // the word is written over its own source
	put := func(c byte) { line[to] = c; to++ }
	for quote := byte(0); ; i++ {
		if i == len(line) {
			return line[from:to:to], i, quote == 0
		}
		c := line[i]
		switch {
		case quote == '"' && c == '\\' && i+3 < len(line) && line[i+1] == 'x' && hex(line[i+2]) >= 0 && hex(line[i+3]) >= 0:
			put(byte(hex(line[i+2])<<4 | hex(line[i+3])))
			i += 3
		case quote == '"' && c == '\\' && i+1 < len(line):
			i++
			put(escape(line[i]))
		case quote == '\'' && c == '\\' && i+1 < len(line) && line[i+1] == '\'':
			i++
			put('\'')
		case quote != 0 && c == quote:
			if i+1 < len(line) && !isSpace(line[i+1]) {
				return nil, 0, false
			}
			return line[from:to:to], i + 1, true
		case quote != 0:
			put(c)
		case c == '"' || c == '\'':
			quote = c
		case c == ' ' || c == '\t' || c == '\r':
			return line[from:to:to], i + 1, true
		default:
			put(c)
		}
	}
}

func escape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

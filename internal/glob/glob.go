// Package glob matches Redis's glob patterns, as KEYS, SCAN MATCH, CONFIG GET and COMMAND LIST use them.
package glob

// Match reports whether s matches the pattern, byte by byte, exactly as Redis's stringmatchlen does: "*" is any run,
// "?" any byte, "[a-z]" one of a class ("[^...]" none of it), and a backslash takes the next byte as it is. With fold,
// ASCII letters match whatever their case.
//
// A run of n stars costs at most len(s) steps a star, since a later star that found no match proves that an earlier
// one cannot find one by starting further on.
func Match(pattern, s []byte, fold bool) bool {
	dead := false
	return match(pattern, s, fold, &dead)
}

// match sets dead when the rest of the pattern behind some star matches at no later point of s either.
func match(p, s []byte, fold bool, dead *bool) bool {
	for len(p) > 0 && len(s) > 0 {
		switch p[0] {
		case '*':
			for len(p) > 1 && p[1] == '*' {
				p = p[1:]
			}
			if len(p) == 1 {
				return true
			}
			for len(s) > 0 {
				if match(p[1:], s, fold, dead) {
					return true
				}
				if *dead {
					return false
				}
				s = s[1:]
			}
			*dead = true
			return false
		case '?':
			s = s[1:]
		case '[':
			var ok bool
			if ok, p = class(p[1:], s[0], fold); !ok {
				return false
			}
			s = s[1:]
		default:
			if p[0] == '\\' && len(p) >= 2 {
				p = p[1:]
			}
			if lower(p[0], fold) != lower(s[0], fold) {
				return false
			}
			s = s[1:]
		}
		p = p[1:]
		if len(s) == 0 {
			for len(p) > 0 && p[0] == '*' {
				p = p[1:]
			}
			break
		}
	}
	return len(p) == 0 && len(s) == 0
}

// class matches c against the class whose first byte is p[0]. It returns the pattern from the closing bracket on, or
// from the last byte on if there is none.
func class(p []byte, c byte, fold bool) (ok bool, rest []byte) {
	not := len(p) > 0 && p[0] == '^'
	if not {
		p = p[1:]
	}
	found := false
	c = lower(c, fold)
	for {
		switch {
		case len(p) >= 2 && p[0] == '\\':
			p = p[1:]
			found = found || p[0] == c
		case len(p) == 0:
			return found != not, []byte{']'}
		case p[0] == ']':
			return found != not, p
		case len(p) >= 3 && p[1] == '-':
			from, to := p[0], p[2]
			if from > to {
				from, to = to, from
			}
			from, to = lower(from, fold), lower(to, fold)
			p = p[2:]
			found = found || c >= from && c <= to
		default:
			found = found || lower(p[0], fold) == c
		}
		p = p[1:]
	}
}

func lower(c byte, fold bool) byte {
	if fold && c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

package wire

// NewOversizedBuilder returns a builder that holds one byte more than a frame may. The bytes are never touched, so
// they cost address space only.
func NewOversizedBuilder() *Builder {
	b := &Builder{buf: make([]byte, HeaderSize+MaxPayload+1), count: 1}
	b.end = len(b.buf)
	return b
}

package wire

import "errors"

// The errors of this package. Parsers wrap them with the value at fault, so test with errors.Is.
var (
	// ErrShort means that the bytes given are a valid beginning and more are needed. It is the only soft error.
	ErrShort = errors.New("wire: need more bytes")
	// ErrMagic means that the bytes are not a frame at all: another protocol, or a reader that lost its place.
	ErrMagic = errors.New("wire: not an Understudy frame")
	// ErrHeaderCRC means that a header was damaged; its length cannot be believed.
	ErrHeaderCRC = errors.New("wire: header checksum mismatch")
	// ErrCRC means that a frame was damaged behind its header.
	ErrCRC = errors.New("wire: frame checksum mismatch")
	// ErrTooLarge means that a payload is over the limit for its kind, or that a mutation does not fit in a frame.
	ErrTooLarge = errors.New("wire: frame too large")
	// ErrMalformed means that a payload with a good checksum does not parse: a defect at the sender.
	ErrMalformed = errors.New("wire: malformed payload")
	// ErrUnknown means a required kind, operation or field that this version does not know.
	ErrUnknown = errors.New("wire: unknown and required")
)

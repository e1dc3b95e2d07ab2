// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"math/rand/v2"
)

// content is what a stream carries, at one end of it: next is for the sender, check for the receiver.
type content interface {
	// next returns the n bytes, at most chunkMax, from position at on. They are valid until the next call.
	next(at int64, n int) []byte
	// check says what is wrong with data that arrived from position at on.
	check(data []byte, at int64) error
}

func newContent(cfg TCPConfig) content {
	switch {
	case cfg.Hash:
		return &hashed{random: rand.NewChaCha8([32]byte{1}), sum: sha256.New(), buf: make([]byte, chunkMax)}
	case cfg.NoVerify:
		return unverified{}
	}
	return repeated{}
}

// repeated is the pattern, over and over.
type repeated struct{}

func (repeated) next(at int64, n int) []byte { return chunk(at, n) }

func (repeated) check(data []byte, at int64) error {
	if bytes.Equal(data, chunk(at, len(data))) {
		return nil
	}
	return mismatch(data, at)
}

// unverified is the pattern sent and never looked at.
type unverified struct{ repeated }

func (unverified) check([]byte, int64) error { return nil }

// hashed is random bytes, of which either end keeps the sum.
type hashed struct {
	random *rand.ChaCha8
	sum    hash.Hash
	buf    []byte
}

func (h *hashed) next(_ int64, n int) []byte {
	h.random.Read(h.buf[:n]) // never fails
	h.sum.Write(h.buf[:n])
	return h.buf[:n]
}

func (h *hashed) check(data []byte, _ int64) error {
	h.sum.Write(data)
	return nil
}

// same compares the two ends of a stream of which everything arrived.
func same(out, in content) error {
	sent, ok := out.(*hashed)
	if !ok {
		return nil
	}
	if a, b := sent.sum.Sum(nil), in.(*hashed).sum.Sum(nil); !bytes.Equal(a, b) {
		return fmt.Errorf("content differs: its SHA-256 is %x where it was sent, %x where it arrived", a, b)
	}
	return nil
}

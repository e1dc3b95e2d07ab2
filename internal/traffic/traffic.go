// SPDX-License-Identifier: BSD-3-Clause

// Package traffic makes real kernel traffic without external programs: frames injected into and
// captured from an interface, pings, and TCP and UDP transfers whose content is verified. Tests,
// benchmarks and the demonstration use it.
//
// Everything happens inside the network namespaces given: sockets are made on a thread in the
// namespace and belong to it from then on. A nil namespace is the calling thread's. Every wait is
// bounded by a context.
//
// Raw sockets need CAP_NET_RAW, other namespaces CAP_SYS_ADMIN. The raw parts are Linux only.
package traffic

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
)

// inside runs f in ns, or here if ns is nil.
func inside(ns *netns.NS, f func() error) error {
	if ns == nil {
		return f()
	}
	return ns.Do(f)
}

const (
	// patternLen is how long the pattern is that transfers repeat. It is a prime, so that a segment
	// lost, doubled or moved never fits in another's place.
	patternLen = 65521
	chunkMax   = 256 << 10
)

// pattern is pseudo-random bytes, repeated to be long enough for a chunk from any phase.
var pattern = func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, patternLen+chunkMax)
	for i := range b[:patternLen] {
		b[i] = byte(r.Uint32())
	}
	for n := patternLen; n < len(b); n += copy(b[n:], b[:n]) {
	}
	return b
}()

// chunk returns n bytes, at most chunkMax, of the pattern's repetition from position at.
func chunk(at int64, n int) []byte {
	phase := at % patternLen
	return pattern[phase : phase+int64(n)]
}

// mismatch says where data that should be the pattern from position at on first differs.
func mismatch(data []byte, at int64) error {
	want := chunk(at, len(data))
	for i, b := range data {
		if b != want[i] {
			return fmt.Errorf("content differs at byte %d: got %#02x, want %#02x", at+int64(i), b, want[i])
		}
	}
	return nil
}

// Transfer is what a transfer came to.
type Transfer struct {
	Bytes   int64         // payload that arrived
	Elapsed time.Duration // from the first byte sent to the last one received
}

// BitsPerSecond is the rate of the payload.
func (t Transfer) BitsPerSecond() float64 {
	if t.Elapsed <= 0 {
		return 0
	}
	return float64(t.Bytes) * 8 / t.Elapsed.Seconds()
}

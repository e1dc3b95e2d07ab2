// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"fmt"
	"testing"
)

var bursts = []int{1, 8, 32, 64}

// eachBench runs f for every engine and burst; a burst is what one call is given.
func eachBench(b *testing.B, f func(b *testing.B, engine string, burst int)) {
	for _, burst := range bursts {
		for _, engine := range engines(b) {
			b.Run(fmt.Sprintf("engine=%s/burst=%d", engine, burst), func(b *testing.B) {
				b.ReportAllocs()
				f(b, engine, burst)
			})
		}
	}
}

// drain reads b.N packets, with queued in the queue at a time, by calls that ask
// for ask. Filling the queue does not count.
func drain(b *testing.B, engine string, queued, ask int) {
	p := newTap(b)
	r := newReader(b, p, selectEngine(b, engine, p), max(64, ask), "fixed")
	f := frame(60, 0)
	b.ResetTimer()
	for left := b.N; left > 0; {
		b.StopTimer()
		want := min(left, queued)
		p.inject(b, want, f)
		b.StartTimer()
		for got := 0; got < want; {
			n := r.Read(r.descs[:ask], r.done)
			if n == 0 {
				b.Fatalf("%d packets of %d", got, want)
			}
			got += n
		}
		left -= want
	}
}

// BenchmarkRead drains a full queue: one op is one packet.
func BenchmarkRead(b *testing.B) {
	eachBench(b, func(b *testing.B, engine string, burst int) { drain(b, engine, queueLen-40, burst) })
}

// BenchmarkReadBeyond asks for one packet more than there is, as a driver does
// that does not know how many there are: one op is one packet.
func BenchmarkReadBeyond(b *testing.B) {
	for _, queued := range bursts {
		for _, engine := range engines(b) {
			b.Run(fmt.Sprintf("engine=%s/queued=%d", engine, queued), func(b *testing.B) {
				p := newTap(b)
				r := newReader(b, p, selectEngine(b, engine, p), queued+1, "fixed")
				f := frame(60, 0)
				b.ResetTimer()
				for left := b.N; left > 0; left -= queued {
					b.StopTimer()
					p.inject(b, queued, f)
					b.StartTimer()
					if n := r.Read(r.descs, r.done); n != queued {
						b.Fatalf("%d packets of %d", n, queued)
					}
				}
			})
		}
	}
}

// BenchmarkReadEmpty looks into an empty queue: one op is one call.
func BenchmarkReadEmpty(b *testing.B) {
	eachBench(b, func(b *testing.B, engine string, burst int) {
		p := newTap(b)
		r := newReader(b, p, selectEngine(b, engine, p), burst, "fixed")
		for b.Loop() {
			r.Read(r.descs, r.done)
		}
	})
}

// BenchmarkWrite sends into a link that is up: one op is one packet.
func BenchmarkWrite(b *testing.B) {
	eachBench(b, func(b *testing.B, engine string, burst int) {
		p := newTap(b)
		w := newWriter(b, p, selectEngine(b, engine, p), burst, "fixed")
		for i := range w.descs {
			w.descs[i] = w.put(i, frame(60, i), "fixed")
		}
		b.ResetTimer()
		for left := b.N; left > 0; left -= burst {
			if taken, refused := w.Write(w.descs, w.failed); taken != burst || refused != 0 {
				b.Fatalf("took %d, refused %d of %d", taken, refused, burst)
			}
		}
	})
}

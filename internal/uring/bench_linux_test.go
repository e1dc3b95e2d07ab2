// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"context"
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/internal/traffic"
)

// eachRing runs f for rings that any thread may use and for those that belong to
// one, and for bursts of 8, 32 and 64.
func eachRing(b *testing.B, f func(b *testing.B, p *tap, r *Ring, burst int)) {
	for _, burst := range []int{8, 32, 64} {
		for _, single := range []bool{false, true} {
			b.Run(fmt.Sprintf("single=%v/burst=%d", single, burst), func(b *testing.B) {
				lockThread(b)
				p := newTap(b)
				r := newRing(b, Config{Entries: burst, SingleThread: single})
				if err := r.RegisterFiles([]int32{int32(p.FD())}); err != nil {
					b.Fatal(err)
				}
				f(b, p, r, burst)
			})
		}
	}
}

// BenchmarkRead drains full queues with RWF_NOWAIT: one op is one packet.
func BenchmarkRead(b *testing.B) {
	eachRing(b, func(b *testing.B, p *tap, r *Ring, burst int) {
		if f := ProbeNoWait(p.FD()); f.Outcome != Yes {
			b.Skip(f)
		}
		in, err := traffic.NewInjector(p.ns, p.index)
		if err != nil {
			b.Fatal(err)
		}
		defer in.Close()
		_, addr := registered(b, r, burst)
		flood := traffic.FloodConfig{Frames: [][]byte{frame(60, 0)}, Count: 448} // the queue takes 500
		b.ResetTimer()
		for done := 0; done < b.N; done += flood.Count {
			b.StopTimer()
			if res, err := in.Flood(context.Background(), flood); err != nil || res.Sent != flood.Count {
				b.Fatal(res, err)
			}
			b.StartTimer()
			for range flood.Count / burst {
				batch := r.Reserve(burst)
				for i := range burst {
					s := batch.At(i)
					s.PrepReadFixed(0, addr+uintptr(i*slot), slot, 0, RWFNoWait)
					s.Flags = FixedFile
				}
				r.Enter()
				for i := range burst {
					if c := r.Completion(i); c.Res != hdrLen+60 {
						b.Fatalf("read %d", c.Res)
					}
				}
				r.Release(burst)
			}
		}
	})
}

// BenchmarkWrite sends: one op is one packet.
func BenchmarkWrite(b *testing.B) {
	eachRing(b, func(b *testing.B, p *tap, r *Ring, burst int) {
		mem, addr := registered(b, r, burst)
		for i := range burst {
			copy(mem[i*slot+hdrLen:], frame(60, i))
		}
		b.ResetTimer()
		for done := 0; done < b.N; done += burst {
			batch := r.Reserve(burst)
			for i := range burst {
				s := batch.At(i)
				s.PrepWriteFixed(0, addr+uintptr(i*slot), hdrLen+60, 0, 0)
				s.Flags = FixedFile | CQESkipSuccess
			}
			if n, errno := r.Enter(); n != burst || r.Ready() != 0 {
				b.Fatal(n, errno)
			}
		}
	})
}

const slot = 2048

func registered(b *testing.B, r *Ring, slots int) ([]byte, uintptr) {
	mem, addr := memory(b, slots*slot)
	if err := r.RegisterBuffers([]Iovec{{addr, uintptr(len(mem))}}); err != nil {
		b.Fatal(err)
	}
	return mem, addr
}

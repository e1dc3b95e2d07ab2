// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/rtap-project/rtap/mbuf"
)

// memory is what an Rx queue receives into: mbufs whose buffers are views of gVisor's, so that a frame can be
// handed to the stack where it lies. A view belongs to whoever owns the mbuf of its number, so there is no lock. It
// stays with the mbuf when its frame was copied, until the driver has no use for it. Each queue has a memory of its own: no
// two goroutines use one but with the queue's gate, or a session's end, in between.
type memory struct {
	pool  *mbuf.Pool
	views []*buffer.View // by the number in the mbuf's private area; also what keeps them from being collected
}

// viewHeadroom is what the driver may put in front of a frame: the virtio-net header, 24 bytes at most.
const viewHeadroom = 32

func newMemory(count int) (*memory, error) {
	pool, err := mbuf.NewPool(mbuf.Config{Name: "netstack rx", Count: count, DataRoom: 64, Headroom: -1, PrivSize: 8})
	if err != nil {
		return nil, err
	}
	all := make([]*mbuf.Mbuf, count)
	for i, m := range all[:pool.AllocBulk(all)] {
		binary.NativeEndian.PutUint64(m.Priv(), uint64(i))
	}
	pool.FreeBulk(all)
	return &memory{pool: pool, views: make([]*buffer.View, count)}, nil
}

func (v *memory) close() error {
	for i := range v.views {
		v.release(i)
	}
	return v.pool.Close()
}

func index(m *mbuf.Mbuf) int { return int(binary.NativeEndian.Uint64(m.Priv())) }

// DataRoom, Headroom and Regions implement rtap.Memory. Views come and go, so they are not registered with the kernel.
func (v *memory) DataRoom() int          { return mbuf.MaxBufLen - viewHeadroom }
func (v *memory) Headroom() int          { return viewHeadroom }
func (v *memory) Regions() []mbuf.Region { return nil }

// AllocBulk implements mbuf.Allocator.
func (v *memory) AllocBulk(bufs []*mbuf.Mbuf) int {
	n := v.pool.AllocBulk(bufs)
	for _, m := range bufs[:n] {
		i := index(m)
		if v.views[i] == nil {
			v.views[i] = buffer.NewViewSize(buffer.MaxChunkSize)
		}
		// It cannot fail: the mbuf is fresh, and the view large enough.
		_ = mbuf.AttachExternal(m, v.views[i].AsSlice()[:mbuf.MaxBufLen], viewHeadroom)
	}
	return n
}

// FreeBulk implements mbuf.Allocator, for the driver, who gives back what it does not need for the time being: the views
// go, too.
func (v *memory) FreeBulk(bufs []*mbuf.Mbuf) {
	for _, m := range bufs {
		for ; m != nil; m = m.Next {
			v.release(index(m))
		}
	}
	v.pool.FreeBulk(bufs)
}

func (v *memory) release(i int) {
	if v.views[i] != nil {
		v.views[i].Release()
		v.views[i] = nil
	}
}

// recycle gives back mbufs whose frames were delivered, with the views that they still have.
func (v *memory) recycle(bufs []*mbuf.Mbuf) { v.pool.FreeBulk(bufs) }

// take is the data of one mbuf but for its first skip bytes, in the view where it lies.
func (v *memory) take(m *mbuf.Mbuf, skip int) *buffer.View {
	i := index(m)
	w := v.views[i]
	v.views[i] = nil
	w.TrimFront(int(m.DataOff) + skip)
	w.CapLength(int(m.DataLen) - skip)
	return w
}

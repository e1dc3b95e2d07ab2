// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

func TestAttachExternal(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 64, PrivSize: 8})
	buf := pattern(1000, 3)
	m := p.Alloc()
	own := m.BufAddr()
	if err := AttachExternal(m, buf, 100); err != nil {
		t.Fatal(err)
	}
	if m.IsDirect() || m.IsWritable() || m.Headroom() != 100 || m.Tailroom() != 900 || m.PktLen != 0 || m.NbSegs != 1 {
		t.Errorf("headroom %d, tailroom %d, %+v", m.Headroom(), m.Tailroom(), *m)
	}
	if b := m.Append(10); &b[0] != &buf[100] || len(b) != 10 {
		t.Error("the data is elsewhere")
	}
	if m.Front(100) == nil || &m.Front(100)[0] != &buf[0] || m.Front(101) != nil {
		t.Error("the headroom is elsewhere")
	}
	expect(t, m, buf[100:110])

	// It can be the middle of a chain, and be copied, but neither be shared nor attached again.
	head, tail := packet(t, p, []byte("head")), packet(t, p, []byte("tail"))
	if err := errors.Join(Chain(head, m), Chain(head, tail)); err != nil {
		t.Fatal(err)
	}
	expect(t, head, append(append([]byte("head"), buf[100:110]...), "tail"...))
	c := Copy(head, p, 0, -1)
	if !c.IsDirect() {
		t.Error("the copy is not direct")
	}
	expect(t, c, head.AppendTo(nil))
	if Clone(head, p) != nil {
		t.Error("cloned")
	}
	if err := AttachExternal(m, buf, 0); !errors.Is(err, ErrShared) {
		t.Errorf("attached twice: %v", err)
	}

	FreeBulk([]*Mbuf{head, c})
	checkFree(t, p)
	for range p.Count() {
		if m := p.Alloc(); m.BufAddr() == own {
			if !m.IsWritable() || m.Tailroom() != 64 || m.Headroom() != DefaultHeadroom {
				t.Errorf("after the external buffer: %+v", *m)
			}
			defer m.Free()
			return
		} else {
			defer m.Free()
		}
	}
	t.Error("the mbuf did not get its own buffer back")
}

func TestAttachExternalRefuses(t *testing.T) {
	p := newPool(t, Config{Count: 4})
	m := packet(t, p, []byte("abc"))
	defer m.Free()
	for _, c := range []struct {
		buf      []byte
		headroom int
	}{{nil, 0}, {make([]byte, MaxBufLen+1), 0}, {make([]byte, 10), 11}, {make([]byte, 10), -1}} {
		if err := AttachExternal(m, c.buf, c.headroom); !errors.Is(err, ErrNoRoom) {
			t.Errorf("%d bytes, headroom %d: %v", len(c.buf), c.headroom, err)
		}
		expect(t, m, []byte("abc"))
	}
	c := Clone(m, p)
	defer c.Free()
	for _, m := range []*Mbuf{m, c} {
		if err := AttachExternal(m, make([]byte, 10), 0); !errors.Is(err, ErrShared) {
			t.Errorf("shared: %v", err)
		}
	}
}

func TestDetachExternal(t *testing.T) {
	p := newPool(t, Config{Count: 2})
	m := p.Alloc()
	defer m.Free()
	own := m.BufAddr()
	if err := AttachExternal(m, make([]byte, MaxBufLen), 0); err != nil {
		t.Fatal(err)
	}
	m.Detach()
	if m.BufAddr() != own || !m.IsWritable() || m.Headroom() != DefaultHeadroom || m.Tailroom() != DefaultDataRoom {
		t.Errorf("%+v", *m)
	}
}

// A buffer may be collected before the mbuf is freed: nobody may look at it then, the collector itself not either
// ("found bad pointer in Go heap"). That takes a collection that runs while the mbuf is freed.
func TestExternalBufferCollected(t *testing.T) {
	nettest.NeedFast(t)
	const n = 256
	p := newPool(t, Config{Count: n})
	stop := make(chan struct{})
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	bufs := make([]*Mbuf, n)
	for range 200 {
		p.AllocBulk(bufs)
		for i, m := range bufs {
			b := bytes.Repeat([]byte{byte(i)}, 40<<10) // a span of its own
			if err := AttachExternal(m, b, 0); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		FreeBulk(bufs)
	}
	close(stop)
	<-collected
	checkFree(t, p)
}

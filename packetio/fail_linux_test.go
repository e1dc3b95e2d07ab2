// SPDX-License-Identifier: BSD-3-Clause

package packetio

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
)

// TestOpenFails: for want of descriptors, at each point where they may run out. Nothing is left, not even an
// interface that was to be persistent; one that was there before stays.
func TestOpenFails(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	link := nettest.Conn(t, ns)
	cfg := rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD()), Name: "old", Persist: true, Queues: 2}
	conns, err := OpenQueues(cfg)
	must(t, err)
	must(t, conns[0].Close())
	before, fails := nettest.Leaks(), 0
	for room := 0; ; room++ {
		cfg.Name = "new"
		if conns, err = openWith(room, cfg); err == nil {
			break
		}
		fails++
		wantIs(t, err, syscall.EMFILE)
		if _, err := link.LinkByName("new"); !errors.Is(err, syscall.ENODEV) {
			t.Fatalf("with room for %d descriptors, the interface is still there: %v", room, err)
		}
		cfg.Name = "old"
		if _, err := openWith(room, cfg); err == nil {
			t.Fatalf("with room for %d descriptors, an old interface opens, but not a new one", room)
		}
		if l, err := link.LinkByName("old"); err != nil || !l.Persistent {
			t.Fatalf("an interface that was there before is %+v, %v", l, err)
		}
	}
	must(t, conns[0].Close())
	before.Check(t)
	if fails < 5 {
		t.Errorf("opening failed only %d times", fails)
	}
	for _, name := range []string{"new", "old"} {
		l, err := link.LinkByName(name)
		must(t, err) // both are persistent
		must(t, link.Delete(l.Index))
	}
}

// openWith is OpenQueues with room for so many descriptors more.
func openWith(room int, cfg rtap.Config) (conns []*Conn, err error) {
	err = nettest.WithDescriptors(room, func() (err error) { conns, err = OpenQueues(cfg); return err })
	return conns, err
}

// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
)

// TestNewFails: for want of descriptors, at each point where they may run out: no interface is left, not even one that was to be
// persistent.
func TestNewFails(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	link := nettest.Conn(t, ns)
	cfg := Config{Port: rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD()), Name: "new", Persist: true}}
	before := nettest.Leaks()
	fails := 0
	for room := 0; ; room++ {
		var opened *Endpoint
		err := nettest.WithDescriptors(room, func() (err error) { opened, err = New(cfg); return err })
		if err == nil {
			opened.Close()
			break
		}
		fails++
		if !errors.Is(err, syscall.EMFILE) {
			t.Fatalf("with room for %d descriptors, error %v", room, err)
		}
		if _, err := link.LinkByName("new"); !errors.Is(err, syscall.ENODEV) {
			t.Fatalf("with room for %d descriptors, the interface is still there: %v", room, err)
		}
	}
	before.Check(t)
	if fails < 5 {
		t.Errorf("New failed only %d times", fails)
	}
	l, err := link.LinkByName("new") // it is persistent
	if err != nil || link.Delete(l.Index) != nil {
		t.Errorf("the interface: %v", err)
	}
}

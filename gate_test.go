// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"runtime"
	"sync/atomic"
	"testing"
)

// TestGate: one at a time, none while it is shut, and shut waits for the one
// that is inside.
func TestGate(t *testing.T) {
	var g gate
	if g.isOpen() || g.enter() {
		t.Fatal("a new gate is open")
	}
	g.open()
	if !g.enter() {
		t.Fatal("an open gate lets nobody in")
	}
	if g.enter() {
		t.Fatal("the gate let two in")
	}
	var left atomic.Bool
	shut := make(chan bool)
	go func() { g.shut(); shut <- left.Load() }()
	for g.isOpen() {
		runtime.Gosched()
	}
	for range 1000 { // shut has every opportunity to return too early
		runtime.Gosched()
	}
	left.Store(true)
	g.leave()
	if !<-shut {
		t.Fatal("shut returned while one was inside")
	}
	if g.enter() {
		t.Fatal("a shut gate let one in")
	}
	g.open()
	if !g.enter() {
		t.Fatal("a gate that was opened again lets nobody in")
	}
	g.leave()
}

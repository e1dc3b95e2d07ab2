// SPDX-License-Identifier: BSD-3-Clause

// Command plugin is the Go half of librte_net_rtap.so, the DPDK plugin: the functions that the C shim in
// ../shim calls. They hand on to package port.
package main

// #include "shim.h"
// #cgo noescape rtap_alloc
// #cgo nocallback rtap_alloc
// #cgo noescape rtap_free
import "C"

import (
	"runtime"
	"unsafe"

	"github.com/rtap-project/rtap/dpdk/port"
	"github.com/rtap-project/rtap/mbuf"
)

// The structs are as large in Go as in C.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_conf{})-unsafe.Sizeof(port.Conf{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_queue_conf{})-unsafe.Sizeof(port.QueueConf{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_started{})-unsafe.Sizeof(port.Started{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_link{})-unsafe.Sizeof(port.Link{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_mac{})-unsafe.Sizeof(port.MAC{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_info{})-unsafe.Sizeof(port.Info{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_stats{})-unsafe.Sizeof(port.Stats{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_xstats{})-unsafe.Sizeof(port.XStats{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_text{})-unsafe.Sizeof(port.Text{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_share{})-unsafe.Sizeof(port.Share{})]
	_ = [1]struct{}{}[unsafe.Sizeof(C.struct_rtap_runtime{})-unsafe.Sizeof(port.Runtime{})]
	_ = [1]struct{}{}[C.RTAP_RUNTIME-port.OpRuntime]
)

// host is port.Host over the C side.
type host struct{}

func (host) Alloc(pool uintptr, bufs []*mbuf.Mbuf) int {
	return int(C.rtap_alloc(C.uintptr_t(pool), C.uintptr_t(uintptr(unsafe.Pointer(unsafe.SliceData(bufs)))), C.uint32_t(len(bufs))))
}

func (host) Free(bufs []*mbuf.Mbuf) {
	C.rtap_free(C.uintptr_t(uintptr(unsafe.Pointer(unsafe.SliceData(bufs)))), C.uint32_t(len(bufs)))
}

func (host) Log(level port.Level, text string) {
	C.rtap_log(C.int32_t(level), C.uintptr_t(uintptr(unsafe.Pointer(unsafe.StringData(text)))), C.uint32_t(len(text)))
}

func (host) Event(p uint16, what port.Events) { C.rtap_event(C.uint16_t(p), C.uint32_t(what)) }

var ports *port.Ports

//export rtapInit
func rtapInit(lcores, maxPorts uint32, version *C.char) int32 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ports = port.New(host{}, int(lcores), int(maxPorts), C.GoString(version))
	ports.TakeRuntime()
	return 0
}

//export rtapProbe
func rtapProbe(p uint16, name, args *C.char, secondary uint32) int32 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return ports.Probe(p, C.GoString(name), C.GoString(args), secondary != 0)
}

//export rtapRemove
func rtapRemove(p uint16) int32 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return ports.Remove(p)
}

//export rtapCall
func rtapCall(op uint32, p uint16, arg unsafe.Pointer, len uint32) int32 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return ports.Call(port.Op(op), p, arg, len)
}

// A burst that is told to make way for a garbage collection hands its processor on, and if that takes another thread, Go
// copies the thread that it is on: with its CPU, an lcore's, unless that thread is locked. It costs 2 ns. No defer: what panics
// here ends the program.

//export rtapRx
func rtapRx(p, queue uint16, bufs unsafe.Pointer, n uint16) uint16 {
	runtime.LockOSThread()
	got := ports.Rx(p, queue, bufs, n)
	runtime.UnlockOSThread()
	return got
}

//export rtapTx
func rtapTx(p, queue uint16, bufs unsafe.Pointer, n uint16) uint16 {
	runtime.LockOSThread()
	sent := ports.Tx(p, queue, bufs, n)
	runtime.UnlockOSThread()
	return sent
}

//export rtapPrepare
func rtapPrepare(p, queue uint16, bufs unsafe.Pointer, n uint16) int32 {
	runtime.LockOSThread()
	ready := ports.Prepare(p, queue, bufs, n)
	runtime.UnlockOSThread()
	return ready
}

//export rtapWaiting
func rtapWaiting(p, queue uint16) int32 {
	runtime.LockOSThread()
	waiting := ports.Waiting(p, queue)
	runtime.UnlockOSThread()
	if waiting {
		return 1
	}
	return 0
}

func main() {}

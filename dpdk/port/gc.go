// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// Go in a process whose lcores poll:
//
//   - Memory is collected at the end of a control call, on the caller's time, and never by itself: a collection
//     stops bursts for a moment and sets worker threads to work.
//   - Each thread that polls needs one of Go's processors (GOMAXPROCS) to itself, or bursts wait for one another,
//     milliseconds at a time.

const (
	collectAfter = 16 << 20 // bytes allocated since the last collection
	spareProcs   = 4        // processors beyond those of the threads that poll
	maxProcs     = 128      // more than so many threads do not poll
)

// runtimePolicy is what we make Go's runtime do.
type runtimePolicy struct {
	mu     sync.Mutex
	on     bool
	lcores int
	procs  int    // GOMAXPROCS
	last   uint64 // bytes allocated when memory was last collected
	pauses debug.GCStats
}

// TakeRuntime makes these ports the masters of Go's runtime, for the whole process: from now on memory is collected
// by control calls only. undo is for tests.
func (p *Ports) TakeRuntime() (undo func()) {
	r := &p.runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on = true
	percent := debug.SetGCPercent(-1)
	r.procs = min(r.lcores, maxProcs) + spareProcs
	procs := runtime.GOMAXPROCS(r.procs)
	return func() {
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(procs)
	}
}

// serve sees to it that so many queues may be polled by a thread each, and both ways.
func (r *runtimePolicy) serve(queues int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if want := min(2*queues, maxProcs) + spareProcs; r.on && want > r.procs {
		r.procs = want
		runtime.GOMAXPROCS(want)
	}
}

// tidy collects memory if there is enough to collect, or if it is the last thing that will be done for a while.
func (r *runtimePolicy) tidy(atEnd bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.on {
		return
	}
	if now := read("/gc/heap/allocs:bytes"); now-r.last >= collectAfter || atEnd {
		r.last = now
		runtime.GC()
	}
}

// read reads one of Go's own counters.
func read(name string) uint64 {
	sample := [1]metrics.Sample{{Name: name}}
	metrics.Read(sample[:])
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// runtime does OpRuntime. It stops nothing.
func (e *eth) runtime(out *Runtime) error {
	r := &e.ports.runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	debug.ReadGCStats(&r.pauses)
	*out = Runtime{
		GCs:        read("/gc/cycles/total:gc-cycles"),
		PauseNs:    uint64(r.pauses.PauseTotal),
		HeapBytes:  read("/memory/classes/heap/objects:bytes"),
		Goroutines: read("/sched/goroutines:goroutines"),
		Threads:    read("/sched/threads/total:threads"),
		Procs:      read("/sched/gomaxprocs:threads"),
		CgoCalls:   read("/cgo/go-to-c-calls:calls"),
	}
	return nil
}

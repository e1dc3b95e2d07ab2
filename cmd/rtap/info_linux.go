// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/rtap-project/rtap/internal/uring"
	"github.com/rtap-project/rtap/mbuf"
	"golang.org/x/sys/unix"
)

// kernelRelease is the running kernel, as uname -sr prints it.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "Linux"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// systemFeatures is what is needed beside io_uring.
func systemFeatures() []uring.Feature {
	caps := capabilities()
	exempt := slices.ContainsFunc(caps, func(f uring.Feature) bool { return f.Name == "CAP_IPC_LOCK" && f.Outcome == uring.Yes })
	return slices.Concat([]uring.Feature{tunDevice()}, caps, []uring.Feature{lockedMemory(exempt), hugePages()})
}

func tunDevice() uring.Feature {
	f := uring.Feature{Name: "/dev/net/tun", Cost: "there are no ports at all"}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		f.Outcome, f.Err, f.Detail = uring.No, err, err.Error()+" (modprobe tun; in a container: --device /dev/net/tun)"
		return f
	}
	f.Outcome, f.Err = uring.Yes, unix.Close(fd)
	return f
}

// capabilities says which of those that matter are effective: capabilities(7).
func capabilities() []uring.Feature {
	list := []struct {
		bit        int
		name, cost string
	}{
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "no interface can be made or set up; only a persistent TAP that belongs to this user can be used"},
		{unix.CAP_IPC_LOCK, "CAP_IPC_LOCK", "the pool's memory is charged to RLIMIT_MEMLOCK when it is registered"},
		{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "no ports in other namespaces (netns=), no rtap bench and demo"},
		{unix.CAP_NET_RAW, "CAP_NET_RAW", "no rtap bench and demo: they send frames of their own"},
	}
	var data [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err := unix.Capget(&hdr, &data[0])
	var out []uring.Feature
	for _, c := range list {
		f := uring.Feature{Name: c.name, Cost: c.cost, Err: err}
		switch {
		case err != nil:
			f.Detail = err.Error()
		case data[c.bit/32].Effective&(1<<(c.bit%32)) == 0:
			f.Outcome, f.Detail = uring.No, "run as root, or give it to the program: setcap "+strings.ToLower(c.name)+"+ep"
		default:
			f.Outcome = uring.Yes
		}
		out = append(out, f)
	}
	return out
}

// lockedMemory says whether RLIMIT_MEMLOCK lets a pool of the usual size be registered.
func lockedMemory(exempt bool) uring.Feature {
	const pool = mbuf.DefaultCount * (mbuf.Size + mbuf.DefaultHeadroom + mbuf.DefaultDataRoom)
	f := uring.Feature{Name: "RLIMIT_MEMLOCK", Outcome: uring.Yes, Detail: "unlimited",
		Cost: "larger pools are not registered, unless CAP_IPC_LOCK is held (ulimit -l)"}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		f.Outcome, f.Detail, f.Err = uring.Unknown, err.Error(), err
		return f
	}
	if lim.Cur != unix.RLIM_INFINITY {
		f.Detail = fmt.Sprintf("%d kB; a pool of %d mbufs has %d kB", lim.Cur>>10, mbuf.DefaultCount, pool>>10)
	}
	switch {
	case exempt:
		f.Detail += ", from which CAP_IPC_LOCK exempts"
	case lim.Cur < pool:
		f.Outcome = uring.No
	}
	return f
}

// hugePages says whether rtap run --huge could work.
func hugePages() uring.Feature {
	f := uring.Feature{Name: "huge pages", Cost: "none until pools are large: --huge then saves TLB misses"}
	sizes, err := hugePageSizes()
	free := 0
	for _, s := range sizes {
		free += s.free
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		f.Outcome, f.Detail, f.Err = uring.No, "this kernel has none", err
	case err != nil:
		f.Detail, f.Err = err.Error(), err
	case free == 0:
		f.Outcome, f.Detail = uring.No, "none is set aside: sysctl vm.nr_hugepages=N"
	default:
		f.Outcome = uring.Yes
		for _, s := range sizes {
			if s.free > 0 {
				f.Detail = strings.TrimPrefix(fmt.Sprintf("%s, %d free of %d kB", f.Detail, s.free, s.kB), ", ")
			}
		}
	}
	return f
}

type hugePageSize struct{ kB, free int }

// hugePageSizes reads what Documentation/admin-guide/mm/hugetlbpage.rst describes.
func hugePageSizes() ([]hugePageSize, error) {
	const dir = "/sys/kernel/mm/hugepages"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []hugePageSize
	for _, e := range entries {
		kB, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"))
		if err != nil {
			continue
		}
		text, err := os.ReadFile(dir + "/" + e.Name() + "/free_hugepages")
		if err != nil {
			return nil, err
		}
		free, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, err
		}
		out = append(out, hugePageSize{kB, free})
	}
	return out, nil
}

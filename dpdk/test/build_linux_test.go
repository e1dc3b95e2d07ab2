// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

func openPlugin(t *testing.T) *elf.File {
	t.Helper()
	needPlugin(t)
	f, err := elf.Open(plugin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// dynamic is the value of a tag of the dynamic section, or 0.
func dynamic(t *testing.T, f *elf.File, tag elf.DynTag) uint64 {
	t.Helper()
	v, err := f.DynValue(tag)
	if err != nil {
		t.Fatal(err)
	}
	if len(v) == 0 {
		return 0
	}
	return v[0]
}

func TestLibraryLinkage(t *testing.T) {
	f := openPlugin(t)
	flags := elf.DynFlag(dynamic(t, f, elf.DT_FLAGS))
	if flags&elf.DF_TEXTREL != 0 || dynamic(t, f, elf.DT_TEXTREL) != 0 {
		t.Error("the library's code is relocated")
	}
	if flags&elf.DF_SYMBOLIC == 0 {
		t.Error("the library's symbols can be another library's")
	}
	if elf.DynFlag1(dynamic(t, f, elf.DT_FLAGS_1))&elf.DF_1_NODELETE == 0 {
		t.Error("dlclose would unload the code of Go's threads")
	}

	// With their versions, so that the plugin of another DPDK is refused.
	needed, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	allowed := regexp.MustCompile(`^(librte_\w+\.so\.\d+|libc\.so\.6|libpthread\.so\.0|ld-linux-.*)$`)
	for _, n := range needed {
		if !allowed.MatchString(n) {
			t.Errorf("the library needs %s", n)
		}
	}
	for _, n := range []string{"ethdev", "eal", "mempool", "bus_vdev"} {
		if !slices.ContainsFunc(needed, regexp.MustCompile(`^librte_`+n+`\.so\.\d+$`).MatchString) {
			t.Errorf("the library does not name librte_%s: %v", n, needed)
		}
	}

	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	// EAL looks for no symbol, it calls the constructors.
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			t.Errorf("the library exports %s", s.Name)
		}
	}
}

// Loading the library starts no Go.
func TestLibraryConstructors(t *testing.T) {
	f := openPlugin(t)
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return regexp.MustCompile(`^_rt0_\w+_linux_lib$`).MatchString(s.Name) })
	if i < 0 {
		t.Fatal("the library has no start of Go's")
	}
	starts := pointers(t, f, ".init_array")
	if len(starts) == 0 {
		t.Error("the library registers nothing")
	}
	if slices.Contains(starts, symbols[i].Value) {
		t.Errorf("%s is a constructor", symbols[i].Name)
	}
	if own := pointers(t, f, "rtap_go_init"); !slices.Equal(own, []uint64{symbols[i].Value}) {
		t.Errorf("rtap_go_init has %#x, want %#x, %s", own, symbols[i].Value, symbols[i].Name)
	}
}

// pointers are the addresses that the loader puts into a section.
func pointers(t *testing.T, f *elf.File, section string) (all []uint64) {
	t.Helper()
	in, rela := f.Section(section), f.Section(".rela.dyn")
	if in == nil || rela == nil {
		t.Fatalf("the library lacks %s or .rela.dyn", section)
	}
	b, err := rela.Data()
	if err != nil {
		t.Fatal(err)
	}
	for ; len(b) >= 24; b = b[24:] {
		if at := binary.LittleEndian.Uint64(b); at >= in.Addr && at < in.Addr+in.Size {
			all = append(all, binary.LittleEndian.Uint64(b[16:]))
		}
	}
	return all
}

func TestPMDInfo(t *testing.T) {
	openPlugin(t)
	nettest.NeedProgram(t, "dpdk-pmdinfo.py")
	out, err := exec.Command("dpdk-pmdinfo.py", plugin).Output()
	if err != nil {
		t.Fatal(err)
	}
	var drivers []struct{ Name, Params string }
	if err := json.Unmarshal(out, &drivers); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(drivers) != 1 || drivers[0].Name != "net_rtap" {
		t.Fatalf("dpdk-pmdinfo.py shows %s", out)
	}
	for _, p := range []string{"iface=", "persist", "mtu=", "mac=", "txqlen=", "netns=", "engine=", "no-carrier"} {
		if !regexp.MustCompile(`(^| )` + p).MatchString(drivers[0].Params) {
			t.Errorf("no parameter %s in %q", p, drivers[0].Params)
		}
	}
}

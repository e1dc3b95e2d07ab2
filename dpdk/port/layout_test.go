// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// The C compiler checks shim/layout.h against DPDK's headers. These tests check it against Go.

func readLayout(t *testing.T) string {
	b, err := os.ReadFile(filepath.Join("..", "shim", "layout.h"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// entries are the lines X(GoName, DPDK_NAME, VALUE) of a file, by GoName.
func entries(t *testing.T, text string) map[string]uint64 {
	all := map[string]uint64{}
	for _, m := range regexp.MustCompile(`X\((\w+), RTE_\w+, (0x[0-9a-f]+)\)`).FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseUint(m[2], 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := all[m[1]]; twice {
			t.Errorf("layout.h has %s twice", m[1])
		}
		all[m[1]] = v
	}
	return all
}

// constants are the exported constants of the package in dir whose names match.
func constants(t *testing.T, dir, names string) map[string]uint64 {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var parsed []*ast.File
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		p, err := parser.ParseFile(set, f, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, p)
	}
	// Imports and what is made of them are missing; constants need none.
	conf := types.Config{Error: func(error) {}}
	pkg, _ := conf.Check(dir, set, parsed, nil)
	match := regexp.MustCompile(names)
	all := map[string]uint64{}
	for _, name := range pkg.Scope().Names() {
		c, ok := pkg.Scope().Lookup(name).(*types.Const)
		if !ok || !match.MatchString(name) {
			continue
		}
		if v, exact := constant.Uint64Val(c.Val()); exact {
			all[name] = v
		}
	}
	return all
}

// noDPDK are constants that DPDK does not have, or not with the same meaning.
var noDPDK = map[string]bool{
	"TxOffloadMask":      true, // of what rtap knows
	"RxOffloadUDPLRO":    true,
	"RxOffloadTunnelLRO": true,
}

func TestLayoutConstants(t *testing.T) {
	want := constants(t, "../../mbuf", `^(Rx|Tx|PType)[A-Z]`)
	for name, v := range constants(t, "../..", `^(Rx|Tx)Offload[A-Z]`) {
		want[name] = v
	}
	if len(want) < 100 {
		t.Fatalf("found %d constants only: %v", len(want), want)
	}
	got := entries(t, readLayout(t))
	for name, v := range want {
		switch w, ok := got[name]; {
		case noDPDK[name]:
		case !ok:
			t.Errorf("layout.h has no %s", name)
		case w != v:
			t.Errorf("layout.h: %s is %#x, in Go it is %#x", name, w, v)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("layout.h has %s, Go has not", name)
	}
}

func TestLayoutFields(t *testing.T) {
	at := map[string]string{}
	for _, m := range regexp.MustCompile(`X\((\w+), (\d+)\)`).FindAllStringSubmatch(readLayout(t), -1) {
		at[strings.ReplaceAll(m[1], "_", "")] = m[2]
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[mbuf.Mbuf]()) {
		name := strings.ToLower(f.Name)
		if f.Name == "_" {
			continue
		}
		if want := strconv.Itoa(int(f.Offset)); at[name] != want {
			t.Errorf("layout.h has %s at %q, mbuf.Mbuf has it at %s", f.Name, at[name], want)
		}
		delete(at, name)
	}
	if len(at) != 0 {
		t.Errorf("layout.h has fields that mbuf.Mbuf has not: %v", at)
	}
}

// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"slices"
	"testing"
)

func TestPickMirror(t *testing.T) {
	const uris = `'http://deb.example.org/debian-security/dists/bookworm-security/InRelease' x_InRelease 0 
'http://deb.example.org/debian/dists/bookworm-updates/InRelease' x_InRelease 0 
'http://vendor.example.com/apt/dists/bookworm/InRelease' x_InRelease 0 
'http://deb.example.org/debian/dists/bookworm/InRelease' x_InRelease 0 
'http://deb.example.org/debian/dists/bookworm/main/binary-amd64/Packages.xz' x_Packages 0 
`
	got, err := pickMirror([]byte(uris))
	if err != nil || got != "http://deb.example.org/debian" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := pickMirror([]byte("'http://archive.example.org/ubuntu/dists/noble/InRelease' x 0 \n")); err == nil {
		t.Errorf("got %q, want an error", got)
	}
}

func TestVersionedPackages(t *testing.T) {
	const paragraph = `Package: linux-image-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Depends: dracut | linux-initramfs-tool, linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)
Description: Linux
`
	got := versioned.FindAllString(field([]byte(paragraph), "Depends"), -1)
	want := []string{"linux-binary-7.2.13+deb14-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := field([]byte(paragraph), "Version"); got != "7.2.13-1" {
		t.Errorf("version %q", got)
	}
}

func TestParseDepends(t *testing.T) {
	for info, want := range map[string][]string{
		"license=GPL\x00depends=a,b-c\x00name=x\x00": {"a", "b-c"},
		"depends=\x00":    nil,
		"xdepends=a\x00":  nil,
		"name=x\x00":      nil,
		"depends=ptp\x00": {"ptp"},
	} {
		if got := parseDepends([]byte(info)); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", info, got, want)
		}
	}
}

func TestModuleName(t *testing.T) {
	for file, want := range map[string]string{
		"tun.ko": "tun", "veth.ko.xz": "veth", "snd-hda-intel.ko": "snd_hda_intel", "tun": "tun",
	} {
		if got := moduleName(file); got != want {
			t.Errorf("%s: got %s, want %s", file, got, want)
		}
	}
}

func TestResolveMissingModule(t *testing.T) {
	missing := errors.New("missing")
	_, err := resolve([]string{"tun"}, func(string) ([]byte, error) { return nil, missing })
	if !errors.Is(err, missing) {
		t.Errorf("got %v", err)
	}
	if _, err := resolve([]string{"tun"}, func(string) ([]byte, error) { return []byte("no ELF"), nil }); err == nil {
		t.Error("a module that is no ELF file was taken")
	}
}

// SPDX-License-Identifier: BSD-3-Clause

package nettest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rtap-project/rtap/internal/rtnl"
)

// held counts what the process holds that can leak, each under a name that says what it is.
func held() map[string]int {
	found := make(map[string]int)
	descriptors(found)
	mappings(found)
	interfaces(found)
	return found
}

// inode is the number that tells one socket or pipe from another; a leaked one is described without,
// because the test's own are numbered anew each time.
var inode = regexp.MustCompile(`^(socket|pipe):\[\d+\]$`)

func descriptors(found map[string]int) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, l := range links {
		target, err := os.Readlink(l)
		if err != nil {
			continue // the one that Glob read the directory with
		}
		if m := inode.FindStringSubmatch(target); m != nil {
			target = m[1]
		}
		what := "descriptor of " + target
		if name := tapName("self", filepath.Base(l)); name != "" {
			what += " attached to interface " + name
		}
		found[what]++
	}
}

// tapName returns the interface that a descriptor of /dev/net/tun is attached to, as the kernel shows
// it in fdinfo ("iff:", tun_chr_show_fdinfo in drivers/net/tun.c).
func tapName(pid, fd string) string {
	info, err := os.ReadFile("/proc/" + pid + "/fdinfo/" + fd)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "iff:"); ok {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// mappings counts the shared mappings of rings and pools. Go's own heap comes and goes.
func mappings(found map[string]int) {
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		name := strings.Join(f[5:], " ")
		if strings.HasPrefix(name, "/memfd:") || strings.HasPrefix(name, "anon_inode:") {
			found["mapping of "+name]++
		}
	}
}

// interfaces counts the TAP interfaces in the namespace that the process started in, but those that
// another process holds: packages are tested side by side. What tests leave in namespaces of their own,
// NS finds.
func interfaces(found map[string]int) {
	c, err := rtnl.Dial(-1)
	if err != nil {
		return
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return
	}
	for _, l := range links {
		if l.Kind == "tun" && !heldElsewhere(l.Name) {
			found[fmt.Sprintf("interface %s (index %d)", l.Name, l.Index)]++
		}
	}
}

func heldElsewhere(name string) bool {
	self := fmt.Sprint(os.Getpid())
	infos, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	for _, path := range infos {
		p := strings.Split(path, "/")
		if p[2] != self && tapName(p[2], p[4]) == name {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: BSD-3-Clause

// Package netns makes network namespaces, enters them and tells them apart.
//
// A namespace is known by a descriptor, never by a name: a namespace made here has no entry under
// /run/netns and vanishes with its last descriptor, socket and thread. See network_namespaces(7),
// setns(2) and unshare(2).
//
// On systems other than Linux every constructor returns an error that wraps [errors.ErrUnsupported].
package netns

import "fmt"

// ID identifies a network namespace for as long as it exists: the device and inode of its file in
// the kernel's nsfs. Two descriptors of one namespace have the same ID; IDs are comparable.
type ID struct {
	Dev, Ino uint64
}

// String gives the form that the links in /proc/self/ns have, "net:[4026531840]".
func (id ID) String() string { return fmt.Sprintf("net:[%d]", id.Ino) }

// SPDX-License-Identifier: BSD-3-Clause

package rtnl

import "golang.org/x/sys/unix"

// Waiting reads one message off the socket, whatever it is. EAGAIN if the filter has let none through.
func (w *Watcher) Waiting() error {
	_, err := w.receive(false)
	return err
}

// Deafen is what it is like without CAP_NET_BROADCAST.
func (w *Watcher) Deafen() { w.all = unix.EPERM }

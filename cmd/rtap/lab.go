// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
)

// lab is network namespaces that vanish with it, for ports and traffic that
// nobody else is to see.
type lab []*netns.NS

// newLab makes n namespaces.
func newLab(n int) (lab, error) {
	var l lab
	for range n {
		ns, err := netns.New()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("a network namespace of its own: %w", err), l.close())
		}
		l = append(l, ns)
	}
	return l, nil
}

// path is what rtap.Config.NetNS takes for the i-th namespace.
func (l lab) path(i int) string { return fmt.Sprintf("/proc/self/fd/%d", l[i].FD()) }

func (l lab) close() error {
	var err error
	for _, ns := range l {
		err = errors.Join(err, ns.Close())
	}
	return err
}

// withoutIPv6 keeps the kernel from announcing itself on the ports that are made
// in the i-th namespace. Where the setting does not exist there is no IPv6.
func (l lab) withoutIPv6(i int) error {
	err := l[i].Do(func() error {
		// /proc/sys/net is that of the thread's namespace.
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EROFS) {
		return nil
	}
	return err
}

// address gives a port in the i-th namespace an address.
func (l lab) address(i int, dev *rtap.Device, prefix netip.Prefix) error {
	conn, err := rtnl.Dial(l[i].FD())
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.AddAddr(dev.Info().IfIndex, prefix)
}

// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package nettest

import (
	"testing"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
)

// NeedRoot skips the test: there are no TAP interfaces here.
func NeedRoot(t testing.TB) { t.Helper(); skip(t, "Linux only") }

// NeedTun skips the test: there are no TAP interfaces here.
func NeedTun(t testing.TB) { t.Helper(); skip(t, "Linux only") }

// NS skips the test: there are no network namespaces here.
func NS(t testing.TB) *netns.NS { t.Helper(); skip(t, "Linux only"); return nil }

// QuietNS skips the test: there are no network namespaces here.
func QuietNS(t testing.TB) *netns.NS { return NS(t) }

// Conn skips the test: there is no rtnetlink here.
func Conn(t testing.TB, ns *netns.NS) *rtnl.Conn { t.Helper(); skip(t, "Linux only"); return nil }

func missingCaps() []string { return nil }

// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rtap-project/rtap"
)

// parseArgs reads the device arguments of vdev name: rtap's, but for the number of queues, which is ethdev's to say, and
// the mode: its ports are Ethernet's.
func parseArgs(name, args string) (rtap.Config, error) {
	all := name
	if args != "" {
		all += "," + args
	}
	_, cfg, err := rtap.ParseDevargs(all)
	var wrong *rtap.ConfigError
	switch {
	case err == nil && cfg.Queues != 0:
		wrong = &rtap.ConfigError{Field: "queues", Value: cfg.Queues,
			Want: "none: the application configures queues (testpmd: --rxq and --txq)"}
	case err == nil && cfg.Mode == rtap.ModeTUN:
		wrong = &rtap.ConfigError{Field: "mode", Value: cfg.Mode, Want: "tap: DPDK's ports are Ethernet's"}
	case errors.As(err, &wrong):
		wrong.Want = strings.TrimSuffix(strings.Replace(wrong.Want, ", mode", "", 1), ", queues") // of an unknown key
	default:
		return cfg, err
	}
	return cfg, fmt.Errorf("device arguments %q: %w", all, wrong)
}

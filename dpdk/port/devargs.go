// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"fmt"
	"strings"

	"github.com/rtap-project/rtap"
)

// parseArgs reads the device arguments of vdev name: rtap's, but for the number of queues, which is ethdev's to say.
func parseArgs(name, args string) (rtap.Config, error) {
	all := name
	if args != "" {
		all += "," + args
	}
	_, cfg, err := rtap.ParseDevargs(all)
	if err == nil && hasKey(args, "queues") {
		err = fmt.Errorf("device arguments %q: %w", all, &rtap.ConfigError{Field: "queues", Value: fmt.Sprint(cfg.Queues),
			Want: "none: the application configures queues (testpmd: --rxq and --txq)"})
	}
	return cfg, err
}

func hasKey(args, key string) bool {
	for arg := range strings.SplitSeq(args, ",") {
		if k, _, _ := strings.Cut(arg, "="); k == key {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package uring

// names is the order of the report.
var names = []string{FeatureIoUring, FeatureCQESkip, FeatureSubmitAll, FeatureCoopTaskrun, FeatureSingleIssuer,
	FeatureDeferTaskrun, FeatureNoSQArray, FeatureFiles, FeatureBuffers, FeatureRingFD, FeatureClone, FeatureSyncCancel}

// Probe says of every feature that it is Linux only.
func Probe() []Feature {
	var list []Feature
	for _, name := range names {
		list = append(list, linuxOnly(feature(name)))
	}
	return list
}

// Supported is false.
func Supported() bool { return false }

// Explain has nothing to add.
func Explain(error) string { return "" }

func probeNoWait(f Feature, _ int) Feature { return linuxOnly(f) }

func linuxOnly(f Feature) Feature {
	f.Outcome, f.Detail, f.Err = No, "Linux only", errLinuxOnly
	return f
}

// SPDX-License-Identifier: BSD-3-Clause

package uring

// Outcome is what a probe found out.
type Outcome int

// The outcomes of a probe.
const (
	Unknown Outcome = iota // the probe itself failed, see Feature.Err
	No                     // the kernel, or a rule of the administrator's, refuses it
	Yes                    // it was tried and worked
)

func (o Outcome) String() string {
	switch o {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "unknown"
}

// MarshalText gives the outcome's name, for JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Feature is one thing that the driver makes use of, and whether it is to be had
// here: on this kernel, with these privileges and limits.
type Feature struct {
	Name    string  `json:"name"`             // the kernel's name for it, without IORING_SETUP_ and the like
	Outcome Outcome `json:"outcome"`          // yes, no or unknown
	Since   string  `json:"since"`            // the Linux version that brings it, such as "6.6"
	Detail  string  `json:"detail,omitempty"` // why not, or what limits it; for people
	Cost    string  `json:"cost"`             // what the driver does without it, and what that costs

	// Err is the errno behind No and Unknown. It wraps errors.ErrUnsupported
	// where Linux itself is missing.
	Err error `json:"-"`
}

// String is a line for a report.
func (f Feature) String() string {
	s := f.Name + ": " + f.Outcome.String()
	if f.Outcome == Unknown {
		s = f.Name + ": could not tell"
	}
	if f.Detail != "" {
		s += ": " + f.Detail
	}
	return s
}

// Names of the features, in the order in which Probe lists them.
const (
	FeatureIoUring      = "io_uring"
	FeatureCQESkip      = "CQE_SKIP_SUCCESS"
	FeatureSubmitAll    = "SUBMIT_ALL"
	FeatureCoopTaskrun  = "COOP_TASKRUN"
	FeatureSingleIssuer = "SINGLE_ISSUER"
	FeatureDeferTaskrun = "DEFER_TASKRUN"
	FeatureNoSQArray    = "NO_SQARRAY"
	FeatureFiles        = "registered files"
	FeatureBuffers      = "registered buffers"
	FeatureRingFD       = "registered ring descriptor"
	FeatureClone        = "CLONE_BUFFERS"
	FeatureSyncCancel   = "SYNC_CANCEL"
	FeatureNoWait       = "RWF_NOWAIT on TAP" // by ProbeNoWait: it needs a descriptor
)

// features is what is known of each before it is tried.
var features = map[string]Feature{
	FeatureIoUring: {Since: "6.0",
		Cost: "the syscall engine takes over: one system call per packet"},
	FeatureCQESkip: {Since: "5.17",
		Cost: "the uring engine does not work"},
	FeatureSubmitAll: {Since: "5.18",
		Cost: "none: no request that the driver makes fails before it is issued"},
	FeatureCoopTaskrun: {Since: "5.19",
		Cost: "none: the driver does not use it, because Go threads have other things to do"},
	FeatureSingleIssuer: {Since: "6.0",
		Cost: "none: the driver's queues may move between threads and do not use it"},
	FeatureDeferTaskrun: {Since: "6.1",
		Cost: "none: the driver's queues may move between threads and do not use it"},
	FeatureNoSQArray: {Since: "6.6",
		Cost: "the kernel reads one index more for each request"},
	FeatureFiles: {Since: "5.1",
		Cost: "the uring engine does not work"},
	FeatureBuffers: {Since: "5.1",
		Cost: "the kernel pins the pages of each packet anew"},
	FeatureRingFD: {Since: "5.18",
		Cost: "none: the driver's queues may move between threads and do not use it"},
	FeatureClone: {Since: "6.12",
		Cost: "each queue pins the pool's memory again, and is charged for it unless CAP_IPC_LOCK is held"},
	FeatureSyncCancel: {Since: "6.0",
		Cost: "the uring engine does not work"},
	FeatureNoWait: {Since: "6.4",
		Cost: "an idle queue posts reads and cancels them: receiving is slower, sending is not"},
}

func feature(name string) Feature {
	f := features[name]
	f.Name = name
	return f
}

// ProbeNoWait tries RWF_NOWAIT on fd, which must be a TAP descriptor, attached to
// an interface and in nobody's use meanwhile: it writes one byte, which is too
// short for a packet, so nothing reaches the network. Tried anew at each call.
func ProbeNoWait(fd int) Feature {
	f := feature(FeatureNoWait)
	return probeNoWait(f, fd)
}

// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"io"
	"log/slog"
	"strings"
)

// logOptions are --log-level and --log-format.
type logOptions struct{ level, format string }

// levelOff is above every level.
const levelOff = slog.Level(1 << 10)

var logLevels = []struct {
	name  string
	level slog.Level
}{{"debug", slog.LevelDebug}, {"info", slog.LevelInfo}, {"warn", slog.LevelWarn}, {"error", slog.LevelError}, {"off", levelOff}}

func (o *logOptions) flags(f *flags) {
	f.StringVar(&o.level, "log-level", "warn", "NAME: the least that is logged, to standard error: debug, info, warn, error or off")
	f.StringVar(&o.format, "log-format", "text", "NAME: text or json (package log/slog), one line an event")
}

// logger is what the flags ask for. The error is a usage error.
func (o *logOptions) logger(f *flags, w io.Writer) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{}
	var names []string
	for _, l := range logLevels {
		names = append(names, l.name)
		if l.name == o.level {
			opts.Level = l.level
		}
	}
	if opts.Level == nil {
		return nil, f.usage("--log-level is %q: want %s", o.level, strings.Join(names, ", "))
	}
	formats := map[string]func() slog.Handler{
		"text": func() slog.Handler { return slog.NewTextHandler(w, opts) },
		"json": func() slog.Handler { return slog.NewJSONHandler(w, opts) },
	}
	handler, ok := formats[o.format]
	if !ok {
		return nil, f.usage("--log-format is %q: want text or json", o.format)
	}
	return slog.New(handler()), nil
}

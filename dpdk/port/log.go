// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
)

// logger is a slog.Handler that hands each record to rte_log, as a line: what it is about, the message, key=value.
type logger struct {
	host  Host
	about string // the port's name
	attrs string // those of WithAttrs, as they appear in the line
	group string // in front of keys
}

func newLog(host Host, about string) *slog.Logger { return slog.New(&logger{host: host, about: about}) }

// Enabled is always true: rte_log knows what is wanted.
func (l *logger) Enabled(context.Context, slog.Level) bool { return true }

func (l *logger) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(l.about + ": " + r.Message + l.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, l.group, a)
		return true
	})
	l.host.Log(levelOf(r.Level), b.String())
	return nil
}

func (l *logger) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, l.group, a)
	}
	with := *l
	with.attrs += b.String()
	return &with
}

func (l *logger) WithGroup(name string) slog.Handler {
	with := *l
	with.group += name + "."
	return &with
}

func writeAttr(b *strings.Builder, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		for _, m := range v.Group() {
			writeAttr(b, group+a.Key+".", m)
		}
		return
	}
	text := v.String()
	if text == "" || strings.ContainsAny(text, " =\"\n") {
		text = strconv.Quote(text)
	}
	b.WriteString(" " + group + a.Key + "=" + text)
}

func levelOf(l slog.Level) Level {
	switch {
	case l >= slog.LevelError:
		return LevelErr
	case l >= slog.LevelWarn:
		return LevelWarning
	case l >= slog.LevelInfo:
		return LevelInfo
	}
	return LevelDebug
}

// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// flags is a verb's flags, in GNU style: --name value, --name=value. A flag's
// usage text begins with what its value is called in the help: "PACKETS: ...".
type flags struct {
	*flag.FlagSet
	intro string // what the verb does, above the flags
	more  string // examples and the like, below them

	operandName string // of the one argument without a flag, if the verb takes one: "PORT"
	operand     string // that argument, if it was given
}

func newFlags(verb, intro, more string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(verb, flag.ContinueOnError), intro: intro, more: more}
	f.SetOutput(io.Discard) // we say it ourselves
	f.Usage = func() {}
	return f
}

// parse reads a verb's arguments. The error is a *usageError, or errHelp after
// help was printed to w.
func (f *flags) parse(args []string, w io.Writer) error {
	err := f.Parse(args)
	switch {
	case err == flag.ErrHelp:
		f.print(w)
		return errHelp
	case err != nil:
		return f.usage("%s", gnuStyle(err.Error()))
	case f.NArg() == 0:
		return nil
	case f.operandName == "" || f.operand != "" || f.Arg(0) == "":
		return f.usage("unexpected argument %q: flags begin with --", f.Arg(0))
	}
	f.operand = f.Arg(0)
	return f.parse(f.Args()[1:], w) // flags may come behind it
}

// gnuStyle gives the messages of package flag the dashes that our help has.
func gnuStyle(text string) string {
	text = strings.Replace(text, "flag provided but not defined: -", "there is no flag --", 1)
	text = strings.Replace(text, "flag needs an argument: -", "a value is missing after --", 1)
	text = strings.Replace(text, "for flag -", "for --", 1)
	if rest, ok := strings.CutPrefix(text, "invalid boolean value"); ok {
		text = "invalid value" + strings.Replace(rest, " for -", " for --", 1)
	}
	return strings.Replace(text, ": parse error", ": not a number", 1)
}

func (f *flags) usage(format string, args ...any) error {
	return &usageError{" " + f.Name(), fmt.Sprintf(format, args...)}
}

// given reports whether the flag was on the command line.
func (f *flags) given(name string) bool {
	found := false
	f.Visit(func(fl *flag.Flag) { found = found || fl.Name == name })
	return found
}

func (f *flags) print(w io.Writer) {
	operand := ""
	if f.operandName != "" {
		operand = " [" + f.operandName + "]"
	}
	fmt.Fprintf(w, "Usage: rtap %s%s [--flag value]...\n\n%s\nFlags:\n", f.Name(), operand, f.intro)
	f.VisitAll(func(fl *flag.Flag) {
		name, usage := "--"+fl.Name, fl.Usage
		if len(fl.Name) == 1 {
			name = "-" + fl.Name
		}
		if value, text, ok := strings.Cut(usage, ": "); ok && value == strings.ToUpper(value) {
			name, usage = name+" "+value, text
		}
		if d := fl.DefValue; d != "" && d != "0" && d != "false" {
			usage += " (default " + d + ")"
		}
		fmt.Fprintf(w, "  %-26s %s\n", name, strings.ReplaceAll(usage, "\n", "\n"+strings.Repeat(" ", 29)))
	})
	fmt.Fprintf(w, "\n%s", f.more)
}

// inRange is a usage error if an integer flag is out of its range.
func (f *flags) inRange(name string, v, lo, hi int) error {
	if v < lo || v > hi {
		return f.usage("--%s is %d: want %d to %d", name, v, lo, hi)
	}
	return nil
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// seconds is a duration: a number of seconds, as testpmd has it, or with a unit,
// as Go has it.
type seconds time.Duration

func (s *seconds) String() string {
	if *s == 0 {
		return "0"
	}
	return strconv.FormatFloat(time.Duration(*s).Seconds(), 'g', -1, 64)
}

// maxSeconds keeps what is computed from a duration within its type.
const maxSeconds = 1 << 31

func (s *seconds) Set(v string) error {
	d, err := time.ParseDuration(v)
	if err != nil {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || !(n >= 0 && n <= maxSeconds) {
			return fmt.Errorf("want a number of seconds, such as 5, 0.5 or 200ms")
		}
		d = time.Duration(n * float64(time.Second))
	}
	if d < 0 {
		return fmt.Errorf("want a number of seconds from 0 on")
	}
	*s = seconds(d)
	return nil
}

// period is seconds that may be left out: --watch, --watch=5.
type period struct{ seconds }

// IsBoolFlag tells package flag that the value may be missing, which is then "true".
func (*period) IsBoolFlag() bool { return true }

// minPeriod keeps what is read from keeping a CPU busy.
const minPeriod = seconds(10 * time.Millisecond)

func (p *period) Set(v string) error {
	if v == "true" {
		v = "1"
	}
	if err := p.seconds.Set(v); err != nil {
		return err
	}
	if p.seconds < minPeriod {
		return fmt.Errorf("want %s seconds or more", strconv.FormatFloat(time.Duration(minPeriod).Seconds(), 'g', -1, 64))
	}
	return nil
}

// ints is a list of numbers: 64,1500.
type ints []int

func (l *ints) String() string {
	s := make([]string, len(*l))
	for i, n := range *l {
		s[i] = strconv.Itoa(n)
	}
	return strings.Join(s, ",")
}

func (l *ints) Set(v string) error {
	*l = nil
	for s := range strings.SplitSeq(v, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("want numbers separated by commas, such as 64 or 42,22")
		}
		*l = append(*l, n)
	}
	return nil
}

// words is a list of words: tx,forward.
type words []string

func (l *words) String() string { return strings.Join(*l, ",") }

func (l *words) Set(v string) error {
	*l = strings.Split(v, ",")
	return nil
}

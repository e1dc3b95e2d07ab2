// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// table is text in columns: the first column on the left, the others on the
// right of their space, as numbers are.
type table struct {
	rows [][]string
	left int // how many columns are on the left
}

func newTable(left int, head ...string) *table {
	return &table{left: left, rows: [][]string{head}}
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	var width []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		var line strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i > 0 {
				line.WriteString("  ")
			}
			if i < t.left {
				line.WriteString(c + pad)
			} else {
				line.WriteString(pad + c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// short is a number with three digits or so and a decimal prefix: 1.23 M.
func short(v float64) string {
	for _, unit := range []string{"", " k", " M", " G", " T"} {
		switch {
		case v >= 999.5 && unit != " T":
			v /= 1000
		case unit == "" && v == float64(int64(v)), v >= 99.5:
			return fmt.Sprintf("%.0f%s", v, unit)
		case v >= 9.95:
			return fmt.Sprintf("%.1f%s", v, unit)
		default:
			return fmt.Sprintf("%.2f%s", v, unit)
		}
	}
	return ""
}

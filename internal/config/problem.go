package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// FieldError says what is wrong with the value of one field.
type FieldError struct {
	// Field is the path of the field, such as idPool.extents[0].start.
	Field string
	// Err reads on after the name of the field.
	Err error
}

func (e *FieldError) Error() string { return e.Field + " " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

func problem(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}

// Problem is one finding about a configuration file.
type Problem struct {
	// Line and Column count from 1; both are 0 where the file does not have what is meant.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Field is the path of the field, empty for the file as a whole.
	Field string `json:"field,omitempty"`
	// Message reads on after the name of the field.
	Message string `json:"message"`
	// Warning marks what is allowed and rarely meant.
	Warning bool `json:"warning"`
}

func (p Problem) Error() string {
	var text strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&text, "line %d: ", p.Line)
	}
	if p.Field != "" {
		text.WriteString(p.Field + " ")
	}
	return text.String() + p.Message
}

// asError joins the problems that are no warnings.
func asError(problems []Problem) error {
	var errs []error
	for _, p := range problems {
		if !p.Warning {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

// place is where a field stands in a file.
type place struct{ line, column int }

// places knows where each field of a file stands, by its path.
type places map[string]place

// problems gives what Validate or Warnings say their lines.
func (at places) problems(err error, warning bool) []Problem {
	switch e := err.(type) { //nolint:errorlint // a tree of joined errors is taken apart, not searched
	case nil:
		return nil
	case interface{ Unwrap() []error }:
		var out []Problem
		for _, one := range e.Unwrap() {
			out = append(out, at.problems(one, warning)...)
		}
		return out
	case *FieldError:
		where := at.nearest(e.Field)
		return []Problem{{Line: where.line, Column: where.column, Field: e.Field, Message: e.Err.Error(), Warning: warning}}
	}
	return []Problem{{Message: err.Error(), Warning: warning}}
}

// nearest is where the field stands, or what it is part of.
func (at places) nearest(field string) place {
	for field != "" {
		if where, ok := at[field]; ok {
			return where
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return place{}
}

// add appends those of more that do not follow from an earlier problem: of a field that has one itself, or whose part has.
func add(problems, more []Problem) []Problem {
	earlier := len(problems)
	for _, p := range more {
		if !slices.ContainsFunc(problems[:earlier], func(e Problem) bool {
			rest, within := strings.CutPrefix(e.Field, p.Field)
			return within && p.Field != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
		}) {
			problems = append(problems, p)
		}
	}
	return problems
}

// inOrder sorts problems as their lines are.
func inOrder(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Field, b.Field))
	})
	return problems
}

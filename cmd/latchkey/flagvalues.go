package main

import (
	"errors"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

var (
	errNotInteger      = errors.New("is not a whole number")
	errNotPositive     = errors.New("is not a whole number above 0")
	errNotMilliseconds = errors.New("is not a number of milliseconds, nor a duration such as 100ms")
	errNotSeconds      = errors.New("is not a number of seconds, nor a duration such as 5m")
	errNotDuration     = errors.New("is not a duration such as 10m")
	errNotLevel        = errors.New("is not debug, info, warn or error")
	errNotFormat       = errors.New("is not text or json")
	errNotLogger       = errors.New("is not zap, the only logger that etcd still has")
	errNotOutput       = errors.New("names no file, stderr or stdout")
	errNotSwitch       = errors.New("is not true or false")
	errNotMetrics      = errors.New("is not basic or extensive")
	errNotTLSVersion   = errors.New("is not TLS1.2 or TLS1.3")
)

func parseText(v string) (string, error) { return v, nil }

// parseList splits at commas. Empty parts do not count.
func parseList(v string) ([]string, error) {
	var list []string
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list, nil
}

func parseMilliseconds(v string) (time.Duration, error) {
	return parseUnit(v, time.Millisecond, errNotMilliseconds)
}

func parseSeconds(v string) (time.Duration, error) {
	return parseUnit(v, time.Second, errNotSeconds)
}

// parseUnit reads a number of units, or a duration with a unit of its own.
func parseUnit(v string, unit time.Duration, wrong error) (time.Duration, error) {
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * unit, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, wrong
	}
	return d, nil
}

// parseDuration wants one above 0; parseAnyDuration one that is not negative.
func parseDuration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return 0, errNotDuration
	}
	return d, nil
}

func parseAnyDuration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, errNotDuration
	}
	return d, nil
}

func parseInteger(v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, errNotInteger
	}
	return n, nil
}

func parsePositive(v string) (int, error) {
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil || n == 0 {
		return 0, errNotPositive
	}
	return int(n), nil
}

// parseStreams reads etcd's word for "no bound", the largest number that its
// flag holds, as our default: there is a bound always.
func parseStreams(v string) (int, error) {
	if n, err := strconv.ParseUint(v, 10, 32); err == nil && n == math.MaxUint32 {
		return 0, nil
	}
	return parsePositive(v)
}

func parseSwitch(v string) (bool, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, errNotSwitch
	}
	return b, nil
}

// parseInverted is for a switch whose field says the opposite.
func parseInverted(v string) (bool, error) {
	b, err := parseSwitch(v)
	return !b, err
}

func parseTLSVersion(v string) (string, error) {
	switch v {
	case "", "TLS1.2", "TLS1.3":
		return v, nil
	}
	return "", errNotTLSVersion
}

// parseMetrics says whether the metrics are the extensive ones.
func parseMetrics(v string) (bool, error) {
	switch v {
	case "basic":
		return false, nil
	case "extensive":
		return true, nil
	}
	return false, errNotMetrics
}

// setLevel also takes etcd's levels above error, which mean the same here.
func setLevel(o *serverOptions, v string) error {
	switch v {
	case "debug":
		o.logLevel = slog.LevelDebug
	case "info":
		o.logLevel = slog.LevelInfo
	case "warn":
		o.logLevel = slog.LevelWarn
	case "error", "dpanic", "panic", "fatal":
		o.logLevel = slog.LevelError
	default:
		return errNotLevel
	}
	return nil
}

// setFormat also takes etcd's word for text.
func setFormat(o *serverOptions, v string) error {
	switch v {
	case "text", "console":
		o.logFormat = "text"
	case "json":
		o.logFormat = "json"
	default:
		return errNotFormat
	}
	return nil
}

// setOutputs also takes etcd's words for standard error, by itself or as read
// by systemd.
func setOutputs(o *serverOptions, v string) error {
	list, err := parseList(v)
	if err != nil || len(list) == 0 {
		return errNotOutput
	}
	o.logOutput = nil
	for _, output := range list {
		switch output {
		case "default", "systemd/journal":
			output = "stderr"
		}
		o.logOutput = append(o.logOutput, output)
	}
	return nil
}

func setLogger(_ *serverOptions, v string) error {
	if v != "zap" {
		return errNotLogger
	}
	return nil
}

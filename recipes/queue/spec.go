package queue

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Schedule says when a cron entry fires.
type Schedule struct {
	every time.Duration // if it is set, the rest is not
	// Bits of the values that match.
	minute, hour, day, month, weekday uint64
	anyDay, anyWeekday                bool // the field was a star
	zone                              *time.Location
}

// everyMin is the shortest interval of @every.
const everyMin = time.Second

// field is a part of a specification.
type field struct {
	name     string
	low, top int
	names    []string // for low and up
}

var fields = [...]field{
	{name: "minute", top: 59},
	{name: "hour", top: 23},
	{name: "day", low: 1, top: 31},
	{name: "month", low: 1, top: 12, names: []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{name: "weekday", top: 7, names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

// shorthands are specifications by name.
var shorthands = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
	"@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

// ParseSchedule reads a specification: five fields "minute hour day month weekday",
// each of them "*", a number, a range "1-5", a list "1,15", or one of those with a
// step "*/10"; months and weekdays also by their first three letters, and Sunday
// is 0 or 7. If day and weekday are both restricted, either may match. "@hourly",
// "@daily", "@weekly", "@monthly" and "@yearly" are short for those; "@every 90s"
// fires at the multiples of a duration since 1970, a second at least.
//
// Times are in UTC, unless it begins with "TZ=Europe/Berlin ". A time that a change
// of clocks leaves out does not fire, one that comes twice fires at its first.
func ParseSchedule(spec string) (*Schedule, error) {
	s := &Schedule{zone: time.UTC}
	rest := strings.TrimSpace(spec)
	if zone, ok := strings.CutPrefix(rest, "TZ="); ok {
		name, after, _ := strings.Cut(zone, " ")
		loc, err := time.LoadLocation(name)
		if err != nil {
			return nil, fmt.Errorf("schedule %q: %w", spec, err)
		}
		s.zone, rest = loc, strings.TrimSpace(after)
	}
	if d, ok := strings.CutPrefix(rest, "@every "); ok {
		every, err := time.ParseDuration(strings.TrimSpace(d))
		if err != nil || every < everyMin {
			return nil, fmt.Errorf("schedule %q: not a duration of a second or more", spec)
		}
		s.every = every.Truncate(time.Millisecond)
		return s, nil
	}
	if long, ok := shorthands[rest]; ok {
		rest = long
	}
	parts := strings.Fields(rest)
	if len(parts) != len(fields) {
		return nil, fmt.Errorf("schedule %q: %d fields, want %d", spec, len(parts), len(fields))
	}
	for i, target := range []*uint64{&s.minute, &s.hour, &s.day, &s.month, &s.weekday} {
		set, err := fields[i].parse(strings.ToLower(parts[i]))
		if err != nil {
			return nil, fmt.Errorf("schedule %q: %w", spec, err)
		}
		*target = set
	}
	if s.weekday&(1<<7) != 0 {
		s.weekday |= 1
	}
	s.anyDay, s.anyWeekday = strings.HasPrefix(parts[2], "*"), strings.HasPrefix(parts[4], "*")
	if s.Next(time.Unix(0, 0)).IsZero() {
		return nil, fmt.Errorf("schedule %q: there is no such day", spec)
	}
	return s, nil
}

func (f field) parse(text string) (set uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		span, step, stepped := strings.Cut(part, "/")
		n := 1
		if stepped {
			if n, err = strconv.Atoi(step); err != nil || n < 1 {
				return 0, fmt.Errorf("%s: step %q", f.name, step)
			}
		}
		low, top := f.low, f.top
		if span != "*" {
			first, last, ranged := strings.Cut(span, "-")
			if low, err = f.value(first); err != nil {
				return 0, err
			}
			switch {
			case ranged:
				if top, err = f.value(last); err != nil {
					return 0, err
				}
			case !stepped:
				top = low
			}
		}
		if low > top {
			return 0, fmt.Errorf("%s: %q is empty", f.name, part)
		}
		for v := low; v <= top; v += n {
			set |= 1 << v
		}
	}
	return set, nil
}

func (f field) value(text string) (int, error) {
	for i, name := range f.names {
		if text == name {
			return f.low + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.low || n > f.top {
		return 0, fmt.Errorf("%s: %q is not within %d and %d", f.name, text, f.low, f.top)
	}
	return n, nil
}

// Next returns the first time after t at which the schedule fires.
func (s *Schedule) Next(t time.Time) time.Time {
	if s.every > 0 {
		step := s.every.Milliseconds()
		return time.UnixMilli((t.UnixMilli()/step + 1) * step)
	}
	t = t.In(s.zone).Truncate(time.Minute).Add(time.Minute)
	// Leap days come at least every eight years.
	for limit := t.AddDate(9, 0, 0); t.Before(limit); {
		switch {
		case s.month&(1<<int(t.Month())) == 0:
			t = time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, s.zone)
		case !s.onDay(t):
			t = time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, s.zone)
		case s.hour&(1<<t.Hour()) == 0:
			t = t.Add(time.Duration(60-t.Minute()) * time.Minute)
		case s.minute&(1<<t.Minute()) == 0:
			// To the next minute that matches in this hour, or to the next hour.
			later := s.minute >> (t.Minute() + 1)
			skip := 60 - t.Minute()
			if later != 0 {
				skip = bits.TrailingZeros64(later) + 1
			}
			t = t.Add(time.Duration(skip) * time.Minute)
		case t.Add(-time.Hour).Hour() == t.Hour():
			t = t.Add(time.Minute) // the second time round of an hour that comes twice
		default:
			return t
		}
	}
	return time.Time{}
}

func (s *Schedule) onDay(t time.Time) bool {
	day, weekday := s.day&(1<<t.Day()) != 0, s.weekday&(1<<int(t.Weekday())) != 0
	if s.anyDay || s.anyWeekday {
		return day && weekday
	}
	return day || weekday
}

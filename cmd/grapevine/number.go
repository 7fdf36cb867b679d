package main

import (
	"regexp"
	"strconv"
	"strings"

	"grapevine/cmd/grapevine/fault"
)

var channelName = regexp.MustCompile(`^[a-z][a-z0-9.-]{0,248}$`)

// checkChannel refuses what can't be a channel's name, before anybody is asked.
func checkChannel(name string) error {
	if channelName.MatchString(name) {
		return nil
	}
	e, _ := fault.Lookup("CHN006")
	return fault.Newf("CHN006", "%q is not a channel name", name).Because(e.Why)
}

// parseNumber reads a block number, oldest or newest, on a chain of that height.
func parseNumber(s string, height uint64) (uint64, error) {
	switch {
	case s == "oldest":
		return 0, nil
	case s == "newest" && height > 0:
		return height - 1, nil
	case s == "newest":
		return 0, fault.New(fault.NotFound, "the chain holds no block")
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strings.HasPrefix(s, "+") {
		return 0, fault.Newf(fault.BadNumber, "%q is not a block number", s)
	}
	return n, nil
}

// parseRange reads FROM..TO or one number, both ends included.
func parseRange(s string, height uint64) (from, to uint64, err error) {
	a, b, ranged := strings.Cut(s, "..")
	if from, err = parseNumber(a, height); err != nil || !ranged {
		return from, from, err
	}
	if to, err = parseNumber(b, height); err != nil {
		return 0, 0, err
	}
	if to < from {
		return 0, 0, fault.Newf(fault.BadNumber, "%q ends before it begins", s)
	}
	return from, to, nil
}

package admin

import (
	"regexp"
	"strconv"
	"strings"

	"grapevine/cmd/grapevine/fault"
)

var channelName = regexp.MustCompile(`^[a-z][a-z0-9.-]{0,248}$`)

// CheckChannel refuses what can't be a channel's name, before anybody is asked.
func CheckChannel(name string) error {
	if channelName.MatchString(name) {
		return nil
	}
	return fault.Newf("CHN006", "%q is not a channel name", name)
}

// ParseNumber reads a block number, oldest or newest, on a chain of that height.
func ParseNumber(text string, height uint64) (uint64, error) {
	switch {
	case text == "oldest":
		return 0, nil
	case text == "newest" && height > 0:
		return height - 1, nil
	case text == "newest":
		return 0, fault.New(fault.NotFound, "the chain holds no block")
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strings.HasPrefix(text, "+") {
		return 0, fault.Newf(fault.BadNumber, "%q is not a block number", text)
	}
	return n, nil
}

// ParseRange reads FROM..TO, one number, or "" for the whole chain; both ends
// are included.
func ParseRange(text string, height uint64) (from, to uint64, err error) {
	if text == "" {
		text = "oldest..newest"
	}
	a, b, two := strings.Cut(text, "..")
	if from, err = ParseNumber(a, height); err != nil || !two {
		return from, from, err
	}
	if to, err = ParseNumber(b, height); err != nil {
		return 0, 0, err
	}
	if to < from {
		return 0, 0, fault.Newf(fault.BadNumber, "%q ends before it begins", text)
	}
	return from, to, nil
}

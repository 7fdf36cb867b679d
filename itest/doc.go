// Package itest is the network under test: real nodes together, on loopback and
// in virtual time, and the rules of the house as tests.
package itest

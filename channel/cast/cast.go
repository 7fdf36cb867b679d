// Package cast is how large bodies travel: erasure-coded stripes over direct
// streams.
package cast

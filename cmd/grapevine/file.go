package main

import (
	"bufio"
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"grapevine/cmd/grapevine/fault"
	"grapevine/wire"
)

// Limits of what is read from a file, in bytes.
const (
	maxBlockFile = wire.MaxBlock
	maxTextFile  = 4 << 20 // certificates, lists, crypto-config.yaml
)

// readFile reads a regular file of at most limit bytes. What keeps it from being
// read is a coded error that names the path.
func readFile(path string, limit int) ([]byte, error) {
	bad := func(why string) ([]byte, error) {
		return nil, fault.Newf(fault.BadFile, "cannot use %s", path).Because(why)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return bad("there is no such file")
	case errors.Is(err, syscall.ELOOP):
		return bad("its links go round in a circle")
	case err != nil:
		return bad(bare(err))
	case info.IsDir():
		return bad("it is a folder")
	case !info.Mode().IsRegular():
		return bad("it is no regular file")
	case info.Size() == 0:
		return bad("it is empty")
	case info.Size() > int64(limit):
		return bad(fmt.Sprintf("it has %d bytes; %d is the most", info.Size(), limit))
	}
	f, err := os.Open(path)
	if err != nil {
		return bad(bare(err))
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return bad(bare(err))
	}
	if len(b) > limit { // it has grown meanwhile
		return bad(fmt.Sprintf("it has more than %d bytes", limit))
	}
	return b, nil
}

// bare is an error without the operation and the path, which the message names.
func bare(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// readCertificates reads the PEM certificates of a file, or one in DER. A file
// with a private key is refused, and nothing of it is shown.
func readCertificates(path string) ([][]byte, error) {
	b, err := readFile(path, maxTextFile)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for rest := b; ; {
		var p *pem.Block
		if p, rest = pem.Decode(rest); p == nil {
			break
		}
		switch {
		case strings.Contains(p.Type, "PRIVATE KEY"):
			return nil, fault.Newf(fault.WrongPEM, "%s holds a private key, not a certificate", path)
		case p.Type == "CERTIFICATE":
			out = append(out, p.Bytes)
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case bytes.Contains(b, []byte("PRIVATE KEY")):
		return nil, fault.Newf(fault.WrongPEM, "%s holds a private key, not a certificate", path)
	case b[0] == 0x30: // a DER sequence
		return [][]byte{b}, nil
	}
	return nil, fault.Newf("CERT006", "%s holds no certificate", path).Because("there is neither a PEM block CERTIFICATE nor DER in it")
}

// blockFiles yields the blocks of a folder's files in the order of their names,
// a block each; folders and hidden files are passed over. Of one file it yields
// all that block export wrote into it, or the one block that it is.
func blockFiles(path string) (iter.Seq2[[]byte, error], error) {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		return exported(path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fault.Newf(fault.BadFile, "cannot read the folder %s", path).Because(bare(err)).From(err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fault.Newf(fault.BadFile, "the folder %s holds no files", path)
	}
	return func(yield func([]byte, error) bool) {
		for _, n := range names {
			if b, err := readFile(n, maxBlockFile); !yield(b, err) || err != nil {
				return
			}
		}
	}, nil
}

// sizeOf returns how many bytes the block files of a folder have together, and
// how many they are; of one file, whose blocks nobody has counted, 0.
func sizeOf(path string) (bytes int64, files uint64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, fault.Newf(fault.BadFile, "cannot use %s", path).Because(bare(err)).From(err)
	}
	if !info.IsDir() {
		return info.Size(), 0, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return 0, 0, fault.Newf(fault.BadFile, "cannot read the folder %s", path).Because(bare(err)).From(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			bytes += info.Size()
			files++
		}
	}
	return bytes, files, nil
}

// blockTag begins every marshalled common.Block: field 1, its header. No frame
// begins so: a block of ten bytes is none.
const blockTag = 0x0a

// exported yields the blocks of a file in protobuf's delimited form, which block
// export writes: each block behind its length, a varint. A part that isn't whole
// comes as it is, and is then no block.
func exported(path string) (iter.Seq2[[]byte, error], error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Newf(fault.BadFile, "cannot use %s", path).Because(bare(err)).From(err)
	}
	r := bufio.NewReader(f)
	begin, err := r.Peek(1)
	if err != nil || begin[0] == blockTag {
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("closing %s: %w", path, err)
		}
		b, err := readFile(path, maxBlockFile)
		return func(yield func([]byte, error) bool) { yield(b, nil) }, err
	}
	return func(yield func([]byte, error) bool) {
		defer func() { _ = f.Close() }() // only read
		for {
			b, err := wire.ReadFrame(r, maxBlockFile)
			switch {
			case errors.Is(err, io.EOF):
				return
			case wire.ReasonOf(err) != nil:
				yield([]byte("a block that is cut off or too large"), nil)
				return
			case err != nil:
				err = fault.Newf(fault.BadFile, "cannot read %s", path).Because(bare(err)).From(err)
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}, nil
}

package msp

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"grapevine/wire"
)

// The parts of an MSP folder.
const (
	caFolder           = "cacerts"
	intermediateFolder = "intermediatecerts"
	adminFolder        = "admincerts"
	signFolder         = "signcerts"
	keyFolder          = "keystore"
	crlFolder          = "crls"
	tlsFolder          = "tlscacerts"
	tlsInterFolder     = "tlsintermediatecerts"
	rolesFile          = "config.yaml"
)

// maxFile is the most that is read of one file in an MSP folder. The largest
// honest one is a revocation list.
const maxFile = 32 << 20

// A FolderError says what is wrong with an MSP folder and what to do about it.
type FolderError struct {
	Folder  string // the MSP folder, or the part of it
	Problem string
	Fix     string
	Reason  *wire.Reason
}

// Error names the folder, the problem and the fix.
func (e *FolderError) Error() string {
	return fmt.Sprintf("MSP folder %s: %s; %s (%v)", e.Folder, e.Problem, e.Fix, e.Reason)
}

// Unwrap returns the reason.
func (e *FolderError) Unwrap() error { return e.Reason }

func folderError(folder, fix, format string, args ...any) error {
	return &FolderError{folder, fmt.Sprintf(format, args...), fix, BadFolder}
}

// A file is one file of a folder, links followed.
type file struct {
	path   string
	data   []byte
	mode   fs.FileMode
	linked bool // reached through a Kubernetes "..data" link
}

// files reads the files of a folder in the order of their names. Folders inside
// are skipped, and so are names that begin with two dots: Kubernetes keeps the
// versions of a secret there and links the visible names to them. A folder that
// does not exist is fs.ErrNotExist.
func files(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, folderError(dir, "let this user read it", "can't be listed: %v", err)
	}
	var list []file
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			return nil, folderError(dir, "repair or remove it", "%s can't be opened: %v", e.Name(), err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		f := file{path: path, mode: info.Mode(), linked: secret(path)}
		if f.data, err = bounded(path); err != nil {
			return nil, folderError(dir, "let this user read it", "%s can't be read: %v", e.Name(), err)
		}
		list = append(list, f)
	}
	return list, nil
}

func bounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	return b, err
}

// secret says whether path leads into a mounted Kubernetes secret: its files are
// links through "..data" into a folder named after two dots and the time.
func secret(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	for part := range strings.SplitSeq(filepath.ToSlash(real), "/") {
		if len(part) > 2 && strings.HasPrefix(part, "..") {
			return true
		}
	}
	return false
}

// blocks returns the PEM blocks of a kind in a file.
func blocks(data []byte, kind string) []*pem.Block {
	var list []*pem.Block
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return list
		}
		if b.Type == kind {
			list = append(list, b)
		}
	}
}

// material returns what a folder holds of a kind, one PEM text each. A file with
// one block is taken as it is, byte for byte, as Fabric's tools take it; one with
// several is taken apart, where Fabric's would drop all but the first. Files
// without such a block are skipped and warned of; certificates must be readable.
func material(dir, kind string) (list [][]byte, warnings []Warning, err error) {
	all, err := files(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range all {
		found := blocks(f.data, kind)
		for _, b := range found {
			if kind != certificateType {
				break
			}
			if _, err := x509.ParseCertificate(b.Bytes); err != nil {
				return nil, nil, folderError(dir, "replace the file", "%s: %v", filepath.Base(f.path), unreadable(b.Bytes, err))
			}
		}
		switch b, _ := pem.Decode(f.data); {
		case len(found) == 0:
			warnings = append(warnings, warn(BadFolder.Code(), "%s holds no %s and is skipped", f.path, kind))
		case len(found) == 1 && b.Type == kind:
			list = append(list, f.data)
		default:
			for _, b := range found {
				list = append(list, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b.Bytes}))
			}
		}
	}
	return list, warnings, nil
}

package main

import (
	"runtime/debug"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
)

// release and commit are set by the linker in a release build.
var release, commit string

func newVersionCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show version, commit, Go and libp2p", GroupID: groupTools,
		Example: "  grapevine version\n  grapevine version -o json",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := buildVersion()
			return a.emit(v, func(t *table) {
				t.row("grapevine", v.Version)
				t.row("commit", v.Commit)
				t.row("go", v.Go)
				t.row("libp2p", v.LibP2P)
			}, func() []string { return []string{v.Version} })
		},
	}
}

// buildVersion says what this binary was built from.
func buildVersion() *admin.Version {
	v := &admin.Version{Version: release, Commit: commit}
	info, ok := debug.ReadBuildInfo()
	if ok {
		v.Go = info.GoVersion
		for _, d := range info.Deps {
			if d.Path == "github.com/libp2p/go-libp2p" {
				v.LibP2P = d.Version
			}
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && v.Commit == "" {
				v.Commit = s.Value
			}
		}
	}
	if v.Version == "" {
		v.Version = "dev"
	}
	return v
}

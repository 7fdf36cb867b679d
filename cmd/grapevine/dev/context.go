package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"grapevine/cmd/grapevine/fault"
)

// ContextName is the context that the newest dev up registers.
const ContextName = "dev"

// contexts is what the user's contexts.json remembers: clusters by name. Other
// fields of it are kept.
type contexts struct {
	APIVersion string                     `json:"apiVersion"`
	Kind       string                     `json:"kind"`
	Contexts   map[string]json.RawMessage `json:"contexts"`
}

// devContext is a context that is a development network.
type devContext struct {
	Dir string `json:"dir"`
}

func contextsFile(getenv func(string) string) (string, error) {
	return userDir(getenv, "XDG_CONFIG_HOME", ".config", "contexts.json")
}

// Register makes the network the one that the context dev names.
func (n *Network) Register(getenv func(string) string) error {
	return change(getenv, func(c *contexts) error {
		raw, err := json.Marshal(devContext{n.dir})
		c.Contexts[ContextName] = raw
		return err
	})
}

// Forget ends the context dev, if the network is what it names.
func (n *Network) Forget(getenv func(string) string) error {
	if dir, err := Registered(getenv); err != nil || dir != n.dir {
		return err
	}
	return change(getenv, func(c *contexts) error {
		delete(c.Contexts, ContextName)
		return nil
	})
}

// Registered is the folder that the context dev names; "" if there is none.
func Registered(getenv func(string) string) (string, error) {
	file, err := contextsFile(getenv)
	if err != nil {
		return "", nil // no home: nothing was ever registered
	}
	c, err := load(file)
	if err != nil || c.Contexts[ContextName] == nil {
		return "", err
	}
	var d devContext
	if err := json.Unmarshal(c.Contexts[ContextName], &d); err != nil {
		return "", damaged(file, err)
	}
	return d.Dir, nil
}

func change(getenv func(string) string, edit func(*contexts) error) error {
	file, err := contextsFile(getenv)
	if err != nil {
		return err
	}
	c, err := load(file)
	if err != nil {
		return err
	}
	if err := edit(c); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("remembering the context: %w", err)
	}
	return renameio.WriteFile(file, append(raw, '\n'), 0o644)
}

func load(file string) (*contexts, error) {
	c := &contexts{}
	raw, err := os.ReadFile(file)
	if err == nil {
		if err := json.Unmarshal(raw, c); err != nil {
			return nil, damaged(file, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the contexts: %w", err)
	}
	c.APIVersion, c.Kind = "grapevine/v1", "Contexts"
	if c.Contexts == nil {
		c.Contexts = map[string]json.RawMessage{}
	}
	return c, nil
}

func damaged(file string, err error) error {
	return fault.Newf(fault.BadFile, "%s is damaged", file).Because(err.Error()).From(err).Do("remove it, and run grapevine dev up again")
}

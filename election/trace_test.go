package election

import (
	"os"
	"strconv"
	"testing"
)

func TestTrace(t *testing.T) {
	name, seed := os.Getenv("KIND"), os.Getenv("SEED")
	if name == "" {
		t.Skip()
	}
	n, _ := strconv.ParseUint(seed, 10, 64)
	for _, k := range nemeses {
		if k.name == name {
			o := try(k, n, t.Logf)
			t.Log(o.errs)
		}
	}
}

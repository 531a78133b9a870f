package faulttest

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
)

// TestTwoDaemons starts a second bitcdnd on the data folder of one that sells,
// and two at the same moment.
func TestTwoDaemons(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	second := func(name string) *e2e.Process {
		return r.Start(r.Dir, filepath.Join(r.Dir, name+".log"), "bitcdnd", "--config", r.box.Config, "--data", r.box.Data)
	}
	s := r.sell()
	var what toll
	for i := range 5 {
		r.box.AwaitSold(s.get, r.box.Sold()+512<<10)
		p := second(fmt.Sprintf("second%d", i))
		r.WantExit(p, 3)
		p.WantWords("bitcdnd: error: ", "another bitcdnd uses this data folder", "bitcdnd: hint: stop the other one")
		what = what.plus(toll{tries: 1, risk: r.box.Status().Earnings.Unsettled})
	}
	for i := range 5 {
		what = what.plus(toll{tries: 1, risk: r.box.Status().Earnings.Unsettled})
		r.box.Process.Kill()
		other := second(fmt.Sprintf("both%d", i))
		r.box.Launch()
		select {
		case <-other.Done:
			r.WantExit(other, 3)
		case <-r.box.Process.Done:
			r.WantExit(r.box.Process, 3)
			other.Kill()
			r.box.Start()
		}
		r.Await("one box", func() error {
			_, err := r.box.Control.Status(r.Ctx)
			return err
		})
	}
	s.get.Kill() // it has been kept waiting too often
	s.run()
	s.complete()
	what.limit = 10 * credit(s.sent())
	record(t, "two daemons on one folder", r.settle().plus(what))
}

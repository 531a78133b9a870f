package box

import (
	"fmt"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
)

const (
	codeCloseLate      = "channels-close-late"
	codeFundingUnknown = "channels-funding-unknown"
)

// endangered makes health conditions of channels whose money may be lost.
func (b *Box) endangered(all []paylink.Danger) {
	var late, unknown dangers
	for _, d := range all {
		switch d.Reason {
		case paylink.CloseLate:
			late.add(d)
		case paylink.FundingUnknown:
			unknown.add(d)
		}
	}
	b.raise(late, health.Condition{Code: codeCloseLate, Severity: health.Failure,
		Title:  fmt.Sprintf("%v of earnings are not settled yet, and buyers can take them back in %d blocks.", late.amount, late.blocks),
		Remedy: "See to it that the box reaches the internet and a block chain service, and leave it running; it settles by itself as soon as it can. If it stays so for an hour, set another service in the settings."})
	b.raise(unknown, health.Condition{Code: codeFundingUnknown, Severity: health.Warning,
		Title:  fmt.Sprintf("The block chain does not know the payments behind %v of earnings.", unknown.amount),
		Remedy: "Nothing has to be done now: the box goes on asking, and sells nothing more to these buyers. If it stays so for a day, set another block chain service in the settings, or the earnings are lost."})
}

// dangers are the channels of one condition.
type dangers struct {
	n      int
	amount money.Satoshis
	blocks uint32 // of the one that is nearest
}

func (d *dangers) add(one paylink.Danger) {
	if d.n == 0 || one.Blocks < d.blocks {
		d.blocks = one.Blocks
	}
	d.n++
	d.amount += one.Amount
}

func (b *Box) raise(d dangers, c health.Condition) {
	if d.n == 0 {
		b.health.Clear(c.Code)
		return
	}
	b.health.Raise(c)
}

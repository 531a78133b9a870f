package box

import (
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/payments/paylink"
)

func TestDangersAreConditions(t *testing.T) {
	t.Parallel()
	b := &Box{health: health.NewSet(time.Now)}
	b.endangered([]paylink.Danger{
		{Reason: paylink.CloseLate, Amount: 700, Blocks: 40},
		{Reason: paylink.CloseLate, Amount: 500, Blocks: 20},
		{Reason: paylink.FundingUnknown, Amount: 30, Blocks: 900},
	})
	list := b.health.List()
	if len(list) != 2 || list[0].Code != codeCloseLate || !strings.Contains(list[0].Title, "1,200 sat") || !strings.Contains(list[0].Title, " 20 blocks") ||
		list[1].Code != codeFundingUnknown || !strings.Contains(list[1].Title, "30 sat") {
		t.Errorf("%+v", list)
	}
	b.endangered([]paylink.Danger{{Reason: paylink.FundingUnknown, Amount: 30}})
	if list := b.health.List(); len(list) != 1 || list[0].Code != codeFundingUnknown {
		t.Errorf("%+v", list)
	}
	b.endangered(nil)
	if list := b.health.List(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

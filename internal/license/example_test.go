package license_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

// The server's key signs a license, and the license (authKey) tells what its tenant (cpCode) may
// do.
func ExampleVerifier_Check() {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	v, err := license.New(license.Config{
		Keys: [][]byte{[]byte("an example of 32 bytes or longer")},
		Now:  func() time.Time { return now },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	authKey, err := v.Issue(license.Params{
		Name:        "My App",
		CpCode:      "MY-APP",
		CompanyCode: "MY-APP",
		MaxUser:     100,
		Start:       now,
		End:         now.AddDate(0, 0, 30),
		Origins:     []string{"https://app.example"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	grant, err := v.Check("MY-APP", authKey)
	fmt.Println(grant.MaxUser, grant.Origins, err)
	_, err = v.Check("ANOTHER", authKey)
	fmt.Println(errors.Is(err, license.ErrRefused))
	now = grant.End
	_, err = v.Check("MY-APP", authKey)
	fmt.Println(err)
	// Output:
	// 100 [https://app.example] <nil>
	// true
	// license expired
}

package protocol

import (
	"errors"
	"strings"
	"testing"
)

func TestRequestErrorsNameTheFieldAndTheCode(t *testing.T) {
	long := strings.Repeat("x", 200)
	for name, c := range map[string]struct {
		into  interface{ Validate() error }
		msg   string
		code  Code
		field string
	}{
		"no cpCode":  {&Register{}, `{"authKey":"k"}`, Missing, "cpCode"},
		"no authKey": {&Register{}, `{"cpCode":"c"}`, Missing, "authKey"},
		"cpCode a list": {&Register{}, `{"cpCode":["c"],"authKey":"k"}`, Invalid,
			"cpCode"},
		"cpCode null": {&Register{}, `{"cpCode":null,"authKey":"k"}`, Missing,
			"cpCode"},
		"authKey an object": {&Register{}, `{"cpCode":"c","authKey":{"k":1}}`, Invalid,
			"authKey"},
		"userId too long": {&Register{},
			`{"cpCode":"c","authKey":"k","userId":"` + long + `"}`, Invalid, "userId"},
		"userId of Object": {&Register{},
			`{"cpCode":"c","authKey":"k","userId":"__proto__"}`, Invalid, "userId"},
		"userId with a new line": {&Register{}, `{"cpCode":"c","authKey":"k","userId":"a\nb"}`,
			Invalid, "userId"},
		"userId half a surrogate": {&Register{}, `{"cpCode":"c","authKey":"k","userId":"\ud800"}`,
			Invalid, "userId"},
		"userId a number": {&Register{}, `{"cpCode":"c","authKey":"k","userId":5}`,
			Invalid, "userId"},
		"forced is no boolean": {&Register{}, `{"cpCode":"c","authKey":"k","forced":"yes"}`,
			Invalid, "a parameter"},
		"features too long": {&Register{},
			`{"cpCode":"c","authKey":"k","features":[` + strings.Repeat(`"`+strings.Repeat("a",
				32)+`",`, 8) + `"a"]}`, Invalid, "features"},
		"a group names one twice": {&GroupRequest{}, `{"list":["a","b","a"]}`, Invalid, "list"},
		"features of controls": {&Register{},
			`{"cpCode":"c","authKey":"k","features":["a\u0001"]}`, Invalid, "features"},
		"features too many": {&Register{},
			`{"cpCode":"c","authKey":"k","features":[` + strings.Repeat(`"a",`, 16) + `"a"]}`,
			Invalid, "features"},
		"name too long": {&Register{},
			`{"cpCode":"c","authKey":"k","name":"` + long + long + `"}`, Invalid, "name"},
		"capacity 0":          {&CreateRoom{}, `{"capacity":0}`, Invalid, "capacity"},
		"capacity huge":       {&CreateRoom{}, `{"capacity":1001}`, Invalid, "capacity"},
		"capacity negative":   {&CreateRoom{}, `{"capacity":-1}`, Invalid, "a parameter"},
		"capacity a fraction": {&CreateRoom{}, `{"capacity":1.5}`, Invalid, "a parameter"},
		"roomId too long":     {&RoomRef{}, `{"roomId":"` + long + `"}`, Invalid, "roomId"},
		"roomId an object":    {&RoomRef{}, `{"roomId":{}}`, Invalid, "roomId"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Decode([]byte(c.msg), c.into)
			if err == nil {
				err = c.into.Validate()
			}
			var f *FieldError
			if !errors.As(err, &f) || f.Code != c.code || f.Field != c.field {
				t.Errorf("got %v, want %s for %s", err, c.code, c.field)
			}
		})
	}
}

func TestStringsStandForBooleansAndNumbers(t *testing.T) {
	var r CreateRoom
	if err := errors.Join(Decode([]byte(`{"capacity":"4","destroy":"false"}`), &r),
		r.Validate()); err != nil {
		t.Fatal(err)
	}
	if *r.Capacity != 4 || bool(*r.Destroy) {
		t.Errorf("got %d %v", *r.Capacity, *r.Destroy)
	}
}

func TestARoomMustBeNamed(t *testing.T) {
	var f *FieldError
	if err := (&RoomRef{}).Require(); !errors.As(err, &f) || f.Code != Missing {
		t.Errorf("got %v", err)
	}
}

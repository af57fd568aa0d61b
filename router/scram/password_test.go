package scram

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"howdah/router/wire"
)

func older(t *testing.T) Verifier {
	t.Helper()
	v, err := ParseVerifier("md5" + hexMD5("secretolder"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMD5(t *testing.T) {
	v, salt := older(t), [MD5SaltSize]byte([]byte("salt"))
	right := answerMD5(hexMD5("secretolder"), salt[:])
	for name, k := range map[string]struct {
		v      Verifier
		salt   string
		answer string
		want   bool
	}{
		"right":            {v, "salt", string(right), true},
		"another salt":     {v, "tlas", string(right), false},
		"in capitals":      {v, "salt", strings.ToUpper(string(right)), false},
		"more than that":   {v, "salt", string(right) + "0", false},
		"nothing":          {v, "salt", "", false},
		"what is stored":   {v, "salt", v.Text(), false},
		"no password":      {Verifier{}, "salt", "md5" + hexMD5("salt"), false},
		"SCRAM's verifier": {pencil(t).Verifier(), "salt", "md5" + hexMD5("salt"), false},
		"a mock":           {Mock([]byte("secret"), "older"), "salt", "md5" + hexMD5("salt"), false},
	} {
		c, ok := CheckMD5("older", k.v, [MD5SaltSize]byte([]byte(k.salt)), []byte(k.answer))
		if ok != k.want || c.Known() != k.want {
			t.Errorf("%s: %v, %v", name, c, ok)
		}
	}
	c, _ := CheckMD5("older", v, salt, right)
	if got := c.Verifier().Text(); got != v.Text() || c.Verifier().Kind != KindMD5 {
		t.Errorf("the credentials' verifier is %v", c.Verifier())
	}
	if text := fmt.Sprintf("%v %+v %#v %v", c, c, c, v); strings.Contains(text, hexMD5("secretolder")) {
		t.Errorf("printed: %s", text)
	}
	login := NewClient(Channel{}, "abc")
	if reply, err := login.Request(request(CodeMD5, "othr")); reply != nil || err != nil || !login.Challenged() || login.Asked() != (Asked{MD5: true}) {
		t.Fatalf("%q, %v, asked %+v", reply, err, login.Asked())
	}
	if _, err := login.Answer(pencil(t)); !errors.Is(err, ErrOtherVerifier) {
		t.Errorf("credentials of SCRAM: %v", err)
	}
	if _, err := login.Answer(Credentials{}); !errors.Is(err, ErrOtherVerifier) {
		t.Errorf("no credentials: %v", err)
	}
	reply, err := login.Answer(c)
	if want := string(answerMD5(hexMD5("secretolder"), []byte("othr"))) + "\x00"; err != nil || reply[0] != 'p' || string(reply[wire.HeaderSize:]) != want {
		t.Errorf("answered %q, %v, want %q", reply, err, want)
	}
	if _, err := login.Request(request(CodeOK, "")); err != nil || !login.Done() {
		t.Errorf("not done: %v", err)
	}
	scram := NewClient(Channel{}, "abc")
	for _, m := range [][]byte{request(CodeSASL, string(Offer([]string{Mechanism}))), request(CodeSASLContinue, "r=abcd,s="+rfcSalt+",i=4096")} {
		if _, err := scram.Request(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := scram.Answer(c); !errors.Is(err, ErrOtherVerifier) {
		t.Errorf("credentials of md5 for SCRAM: %v", err)
	}
}

func TestAskedFits(t *testing.T) {
	scram := pencil(t).Verifier()
	by := Asked{Salt: scram.Salt, Iterations: scram.Iterations}
	for name, k := range map[string]struct {
		asked Asked
		v     Verifier
		want  bool
	}{
		"nothing": {Asked{}, scram, false}, "its own": {by, scram, true}, "another salt": {Asked{Salt: "x", Iterations: 4096}, scram, false},
		"a mock of none": {by, Verifier{}, true}, "a mock of md5": {by, older(t), true},
		"md5": {Asked{MD5: true}, older(t), true}, "md5 of none": {Asked{MD5: true}, Verifier{}, true}, "md5 of SCRAM": {Asked{MD5: true}, scram, false},
	} {
		if got := k.asked.Fits(k.v); got != k.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	creds, err := FromPassword("alice", "I\u2168", "0123456789abcdef", 4096) // what SASLprep leaves as IIX
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := FromPassword("alice", "IIX", "0123456789abcdef", 4096)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := FromPassword("alice", "a\xff", "0123456789abcdef", 4096)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]struct {
		v        Verifier
		password string
		want     bool
	}{
		"SCRAM":                  {pencil(t).Verifier(), "pencil", true},
		"SCRAM, wrong":           {pencil(t).Verifier(), "pen", false},
		"SCRAM, empty":           {pencil(t).Verifier(), "", false},
		"prepared":               {prepared.Verifier(), "I\u2168", true},
		"made without SASLprep":  {creds.Verifier(), "I\u2168", true},
		"not UTF-8":              {raw.Verifier(), "a\xff", true},
		"a mock":                 {Mock([]byte("secret"), "alice"), "pencil", false},
		"no password":            {Verifier{}, "", false},
		"md5":                    {older(t), "secret", true},
		"md5, wrong":             {older(t), "other", false},
		"md5, what is stored":    {older(t), older(t).Text(), false},
		"SCRAM, what is stored":  {pencil(t).Verifier(), pencil(t).Verifier().Text(), false},
		"md5, of another's name": {older(t), "secretolder", false},
	} {
		c, ok := CheckPassword("older", k.v, k.password)
		if ok != k.want || c.Known() != k.want {
			t.Errorf("%s: %v", name, ok)
		}
		if ok && c.Verifier().Text() != k.v.Text() {
			t.Errorf("%s: the credentials' verifier is another", name)
		}
	}
}

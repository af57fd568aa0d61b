package postgres

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestVerifier(t *testing.T) {
	// The example of RFC 7677: user "user", password "pencil".
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	got, err := verifier("pencil", salt, 4096)
	const want = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if err != nil || got != want {
		t.Fatalf("got %s, %v\nwant %s", got, err, want)
	}
	if !verifierMatches(want, "pencil") || verifierMatches(want, "Pencil") {
		t.Fatal("the wrong password matches")
	}
	again, err := newVerifier("pencil")
	if err != nil || again == want || !verifierMatches(again, "pencil") {
		t.Fatalf("new verifier %s, %v", again, err)
	}
	for _, v := range []string{"", "md5d41d8cd98f00b204e9800998ecf8427e", "SCRAM-SHA-256$", "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==",
		"SCRAM-SHA-256$-1:W22ZaJ0SNY7soEsUEjb6gQ==$a:b", "SCRAM-SHA-256$99999999999:W22ZaJ0SNY7soEsUEjb6gQ==$a:b",
		strings.Replace(want, "wfP", "wfQ", 1), "SCRAM-SHA-256$4096:!$a:b"} {
		if verifierMatches(v, "pencil") {
			t.Errorf("%q matches", v)
		}
	}
}

package scram

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"howdah/router/wire"
)

// The example of RFC 7677, section 3: user "user", password "pencil".
const (
	rfcSalt        = "W22ZaJ0SNY7soEsUEjb6gQ=="
	rfcClientNonce = "rOprNGfwEbeRWgbNEkqO"
	rfcServerNonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcFirst       = "n,,n=user,r=" + rfcClientNonce
	rfcChallenge   = "r=" + rfcClientNonce + rfcServerNonce + ",s=" + rfcSalt + ",i=4096"
	rfcFinal       = "c=biws,r=" + rfcClientNonce + rfcServerNonce + ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcSignature   = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	rfcVerifier    = "SCRAM-SHA-256$4096:" + rfcSalt + "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)

func salt(t testing.TB) string {
	b, err := base64.StdEncoding.DecodeString(rfcSalt)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func pencil(t testing.TB) Credentials {
	c, err := FromPassword("user", "pencil", salt(t), 4096)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServerWithTheExampleOfTheRFC(t *testing.T) {
	v, err := ParseVerifier(rfcVerifier)
	if err != nil || v.Text() != rfcVerifier || pencil(t).Verifier().Text() != rfcVerifier {
		t.Fatalf("verifier %v, %v", v, err)
	}
	s := NewServer(Channel{}, rfcServerNonce)
	if err := s.First(Mechanism, []byte(rfcFirst)); err != nil {
		t.Fatal(err)
	}
	if got := string(s.Challenge(v)); got != rfcChallenge {
		t.Fatalf("challenge %q", got)
	}
	if err := s.Final([]byte(rfcFinal)); err != nil {
		t.Fatal(err)
	}
	c, signature, ok := s.Check("user", v)
	if !ok || string(signature) != rfcSignature {
		t.Fatalf("%v, signature %q", ok, signature)
	}
	if c.User != "user" || c.keys() != pencil(t).keys() {
		t.Fatal("the keys that were recovered are not those of the password")
	}
	// The same proof against anything else.
	other, err := FromPassword("user", "Pencil", salt(t), 4096)
	if err != nil {
		t.Fatal(err)
	}
	saltier, err := FromPassword("user", "pencil", salt(t)+"x", 4096)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]Verifier{
		"another password": other.Verifier(), "another salt": saltier.Verifier(), "a mock": MockLike([]byte("secret"), "user", salt(t), 4096), "none": {},
	} {
		if _, _, ok := s.Check("user", v); ok {
			t.Errorf("the proof holds against %s", name)
		}
	}
	// Not even a verifier that is right, once it is marked.
	v.mock = true
	if _, _, ok := s.Check("user", v); ok {
		t.Error("a proof of a mock")
	}
}

func TestClientWithTheExampleOfTheRFC(t *testing.T) {
	c := NewClient(Channel{}, rfcClientNonce)
	if _, err := c.Request(request(CodeSASL, string(Offer([]string{Mechanism})))); err != nil {
		t.Fatal(err)
	}
	c.firstBare = "n=user,r=" + rfcClientNonce // ours leaves the name out
	if _, err := c.Request(request(CodeSASLContinue, rfcChallenge)); err != nil {
		t.Fatal(err)
	}
	if a := c.Asked(); a != (Asked{Salt: salt(t), Iterations: 4096}) || !c.Challenged() {
		t.Fatalf("asked for %+v", a)
	}
	final, err := c.Answer(pencil(t))
	if err != nil || string(final[wire.HeaderSize:]) != rfcFinal {
		t.Fatalf("%q, %v", final, err)
	}
	if _, err := c.Request(request(CodeSASLFinal, rfcSignature)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Request(request(CodeOK, "")); err != nil || !c.Done() {
		t.Fatalf("done %v, %v", c.Done(), err)
	}
}

func request(code uint32, rest string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, code), rest...)
}

// login plays both sides, each over a channel of its own, and returns the server's verdict and the first error.
func login(t *testing.T, client, server Channel, with Credentials, against Verifier) (Credentials, error) {
	t.Helper()
	c, s := NewClient(client, "client-nonce"), NewServer(server, "server-nonce")
	first, err := c.Request(request(CodeSASL, string(Offer(s.Mechanisms()))))
	if err != nil {
		return Credentials{}, err
	}
	r, err := ParseInitial(first[wire.HeaderSize:])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.First(r.Mechanism, r.Data); err != nil {
		return Credentials{}, err
	}
	if _, err := c.Request(request(CodeSASLContinue, string(s.Challenge(against)))); err != nil {
		return Credentials{}, err
	}
	final, err := c.Answer(with)
	if err != nil {
		return Credentials{}, err
	}
	if h := wire.ParseHeader(final); h.Type != 'p' || h.Size() != len(final) {
		t.Fatalf("message %q", final)
	}
	if err := s.Final(final[wire.HeaderSize:]); err != nil {
		return Credentials{}, err
	}
	got, signature, ok := s.Check(with.User, against)
	if !ok {
		return Credentials{}, errors.New("refused")
	}
	if _, err := c.Request(request(CodeSASLFinal, string(signature))); err != nil {
		return Credentials{}, err
	}
	_, err = c.Request(request(CodeOK, ""))
	if err == nil && !c.Done() {
		t.Fatal("not done")
	}
	return got, err
}

func TestLogin(t *testing.T) {
	creds := pencil(t)
	tls, other := Channel{EndPoint: []byte("certificate")}, Channel{EndPoint: []byte("another")}
	got, err := login(t, Channel{}, Channel{}, creds, creds.Verifier())
	if err != nil {
		t.Fatal(err)
	}
	// What a proof has left opens the next server, and the one after.
	for _, ch := range []Channel{{}, tls} {
		if got, err = login(t, ch, ch, got, creds.Verifier()); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		client, server Channel
		want           string
	}{
		"another certificate":           {tls, other, "channel binding check failed"},
		"offer taken away (flag y)":     {tls, Channel{}, ""}, // an honest server without channel binding takes y
		"client without binding":        {Channel{}, tls, ""},
		"plus over plus, same endpoint": {tls, tls, ""},
	} {
		_, err := login(t, c.client, c.server, creds, creds.Verifier())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	changed, err := FromPassword("user", "pencil", "new salt", 4096)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := login(t, Channel{}, Channel{}, creds, changed.Verifier()); !errors.Is(err, ErrOtherVerifier) {
		t.Errorf("another salt: %v", err)
	}
	if _, err := login(t, Channel{}, Channel{}, Credentials{User: "user"}, creds.Verifier()); !errors.Is(err, ErrOtherVerifier) {
		t.Errorf("no credentials: %v", err)
	}
	if _, err := login(t, Channel{}, Channel{}, creds, MockLike([]byte("s"), "user", salt(t), 4096)); err == nil {
		t.Error("a mock accepts")
	}
}

func TestServerRefuses(t *testing.T) {
	tls := Channel{EndPoint: []byte("certificate")}
	for name, c := range map[string]struct {
		channel         Channel
		mechanism, text string
		code, want      string
	}{
		"unknown mechanism":        {Channel{}, "SCRAM-SHA-1", rfcFirst, "08P01", "invalid SASL authentication mechanism"},
		"plus without TLS":         {Channel{}, MechanismPlus, "p=tls-server-end-point,,n=,r=x", "08P01", "invalid SASL authentication mechanism"},
		"empty":                    {Channel{}, Mechanism, "", "08P01", "The message is empty."},
		"zero byte":                {Channel{}, Mechanism, "n,,n=,r=x\x00", "08P01", "Message length does not match"},
		"too long":                 {Channel{}, Mechanism, "n,,n=,r=" + strings.Repeat("x", MaxMessage), "08P01", "longer than"},
		"downgraded":               {tls, Mechanism, "y,,n=,r=x", "28000", "thinks the server does not"},
		"plus with n":              {tls, MechanismPlus, "n,,n=,r=x", "08P01", "does not include channel binding data"},
		"plus with y":              {tls, MechanismPlus, "y,,n=,r=x", "08P01", "does not include channel binding data"},
		"p without plus":           {tls, Mechanism, "p=tls-server-end-point,,n=,r=x", "08P01", "without channel binding"},
		"another kind of binding":  {tls, MechanismPlus, "p=tls-unique,,n=,r=x", "08P01", `unsupported SCRAM channel-binding type "tls-unique"`},
		"unknown flag":             {Channel{}, Mechanism, "q,,n=,r=x", "08P01", "Unexpected channel-binding flag"},
		"no comma":                 {Channel{}, Mechanism, "nn=,r=x", "08P01", "Comma expected"},
		"authorization identity":   {Channel{}, Mechanism, "n,a=bob,n=,r=x", "0A000", "authorization identity"},
		"mandatory extension":      {Channel{}, Mechanism, "n,,m=1,n=,r=x", "0A000", "unsupported SCRAM extension"},
		"no name":                  {Channel{}, Mechanism, "n,,r=x", "08P01", `Expected attribute "n"`},
		"no nonce":                 {Channel{}, Mechanism, "n,,n=x", "08P01", `Expected attribute "r"`},
		"empty nonce":              {Channel{}, Mechanism, "n,,n=,r=", "08P01", "nonce"},
		"nonce not printable":      {Channel{}, Mechanism, "n,,n=,r=a\x01", "08P01", "non-printable characters in SCRAM nonce"},
		"extension without a name": {Channel{}, Mechanism, "n,,n=,r=a,=", "08P01", "Attribute expected"},
		"extension without =":      {Channel{}, Mechanism, "n,,n=,r=a,x", "08P01", `Expected character "="`},
	} {
		err := NewServer(c.channel, "s").First(c.mechanism, []byte(c.text))
		if err == nil || err.Code != c.code || !strings.Contains(err.Message+"|"+err.Detail, c.want) || err.Severity != "FATAL" {
			t.Errorf("%s: %v (%+v)", name, err, err)
		}
	}
	for text, want := range map[string]string{
		"":                            "empty",
		"r=cs,p=x":                    `Expected attribute "c"`,
		"c=eSws,r=cs,p=x":             "unexpected SCRAM channel-binding attribute",
		"c=biws,r=cs":                 "Attribute expected",
		"c=biws,r=other,p=" + zeroKey: "Nonce does not match",
		"c=biws,r=c,p=" + zeroKey:     "Nonce does not match",
		"c=biws,r=cs,p=AAAA":          "Malformed proof",
		"c=biws,r=cs,p=" + zeroKey[:8] + "\n" + zeroKey[8:]: "Malformed proof",
		"c=biws,r=cs,p=" + zeroKey + ",x=1":                 "Garbage",
	} {
		s := NewServer(Channel{}, "s")
		if err := s.First(Mechanism, []byte("n,,n=,r=c")); err != nil {
			t.Fatal(err)
		}
		s.Challenge(pencil(t).Verifier())
		err := s.Final([]byte(text))
		if err == nil || !strings.Contains(err.Message+"|"+err.Detail, want) {
			t.Errorf("%q: %+v, want %q", text, err, want)
		}
	}
}

var zeroKey = base64.StdEncoding.EncodeToString(make([]byte, KeySize))

func TestExtensionsArePassedOver(t *testing.T) {
	s := NewServer(Channel{}, rfcServerNonce)
	if err := s.First(Mechanism, []byte(rfcFirst+",x=1")); err != nil {
		t.Fatal(err)
	}
	s.Challenge(pencil(t).Verifier())
	if err := s.Final([]byte(strings.Replace(rfcFinal, ",p=", ",y=2,p=", 1))); err != nil {
		t.Fatal(err)
	}
	if want := "c=biws,r=" + rfcClientNonce + rfcServerNonce + ",y=2"; s.finalBare != want {
		t.Errorf("without the proof: %q, want %q", s.finalBare, want)
	}
	if _, _, ok := s.Check("user", pencil(t).Verifier()); ok {
		t.Error("extensions are not part of what is proved")
	}
}

func TestClientRefuses(t *testing.T) {
	challenged := func() *Client {
		c := NewClient(Channel{}, "abc")
		if _, err := c.Request(request(CodeSASL, string(Offer([]string{Mechanism})))); err != nil {
			t.Fatal(err)
		}
		return c
	}
	answered := func() *Client {
		c := challenged()
		if _, err := c.Request(request(CodeSASLContinue, "r=abcd,s="+rfcSalt+",i=4096")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Answer(pencil(t)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for name, c := range map[string]struct {
		client *Client
		body   []byte
		want   string
	}{
		"short":                      {NewClient(Channel{}, "abc"), []byte{0, 0}, "without a code"},
		"md5":                        {NewClient(Channel{}, "abc"), request(CodeMD5, "sal"), "an md5 password without a salt"},
		"md5 in the middle":          {challenged(), request(CodeMD5, "salt"), "does not belong here"},
		"password":                   {NewClient(Channel{}, "abc"), request(CodePassword, ""), "a password in clear"},
		"GSS":                        {NewClient(Channel{}, "abc"), request(7, ""), "GSSAPI"},
		"other mechanisms":           {NewClient(Channel{}, "abc"), request(CodeSASL, "OAUTHBEARER\x00\x00"), "OAUTHBEARER"},
		"final first":                {NewClient(Channel{}, "abc"), request(CodeSASLFinal, rfcSignature), "not for SCRAM"},
		"accepted in the middle":     {challenged(), request(CodeOK, ""), "does not belong here"},
		"a second offer":             {challenged(), request(CodeSASL, string(Offer([]string{Mechanism}))), "does not belong here"},
		"empty challenge":            {challenged(), request(CodeSASLContinue, ""), "malformed"},
		"another nonce":              {challenged(), request(CodeSASLContinue, "r=xbcd,s="+rfcSalt+",i=4096"), "nonce"},
		"our nonce alone":            {challenged(), request(CodeSASLContinue, "r=abc,s="+rfcSalt+",i=4096"), "nonce"},
		"no salt":                    {challenged(), request(CodeSASLContinue, "r=abcd,s=,i=4096"), "salt"},
		"salt not base64":            {challenged(), request(CodeSASLContinue, "r=abcd,s=!,i=4096"), "salt"},
		"no iterations":              {challenged(), request(CodeSASLContinue, "r=abcd,s="+rfcSalt+",i=0"), "iteration count"},
		"negative iterations":        {challenged(), request(CodeSASLContinue, "r=abcd,s="+rfcSalt+",i=-1"), "iteration count"},
		"huge iterations":            {challenged(), request(CodeSASLContinue, "r=abcd,s="+rfcSalt+",i=99999999999"), "iteration count"},
		"wrong signature":            {answered(), request(CodeSASLFinal, rfcSignature), "does not know"},
		"an error as signature":      {answered(), request(CodeSASLFinal, "e=invalid-proof"), "server-final-message"},
		"accepted without signature": {answered(), request(CodeOK, ""), "does not belong here"},
	} {
		_, err := c.client.Request(c.body)
		if err == nil || !strings.Contains(err.Error(), c.want) || c.client.Done() {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := NewClient(Channel{}, "abc").Answer(pencil(t)); err == nil {
		t.Error("an answer to nothing")
	}
	trusted := NewClient(Channel{}, "abc")
	if _, err := trusted.Request(request(CodeOK, "")); err != nil || !trusted.Done() {
		t.Errorf("trust: %v", err)
	}
}

// What a stranger sees of a user that does not exist is what it sees of one that does.
func TestMock(t *testing.T) {
	one, two := Mock([]byte("secret"), "nobody"), Mock([]byte("secret"), "nobody")
	if one.Text() != two.Text() || len(one.Salt) != len(salt(t)) || one.Iterations != 4096 || one.Kind != KindSCRAM {
		t.Errorf("%q, %q", one.Salt, two.Salt)
	}
	if Mock([]byte("secret"), "somebody").Salt == one.Salt || Mock([]byte("other"), "nobody").Salt == one.Salt {
		t.Error("the salt does not depend on the user and the secret")
	}
	if like := MockLike([]byte("secret"), "nobody", "given", 77); !like.Fits("given", 77) {
		t.Error("not like the server's")
	}
	if _, err := ParseVerifier(one.Text()); err != nil {
		t.Errorf("a mock's text: %v", err)
	}
}

func TestParseVerifier(t *testing.T) {
	for text, want := range map[string]Kind{
		"": KindNone, rfcVerifier: KindSCRAM, "md5d41d8cd98f00b204e9800998ecf8427e": KindMD5,
	} {
		if v, err := ParseVerifier(text); err != nil || v.Kind != want {
			t.Errorf("%q: %v, %v", text, v, err)
		}
	}
	for _, text := range []string{
		"secret", "md5secret", "md5D41D8CD98F00B204E9800998ECF8427E", "SCRAM-SHA-256", "SCRAM-SHA-256$", "SCRAM-SHA-256$4096:" + rfcSalt,
		"SCRAM-SHA-1" + rfcVerifier[len(Mechanism):], strings.Replace(rfcVerifier, "4096", "-1", 1), strings.Replace(rfcVerifier, "4096", "+1", 1),
		strings.Replace(rfcVerifier, "4096", "0", 1), strings.Replace(rfcVerifier, "4096", "2147483648", 1), strings.Replace(rfcVerifier, "4096", "", 1),
		strings.Replace(rfcVerifier, rfcSalt, "", 1), strings.Replace(rfcVerifier, rfcSalt, "!", 1), rfcVerifier + "=", rfcVerifier + ":", rfcVerifier[:len(rfcVerifier)-4],
		rfcVerifier + strings.Repeat("x", maxVerifier),
	} {
		if v, err := ParseVerifier(text); err == nil {
			t.Errorf("%q is accepted as %v", text, v)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "WG5d8") {
			t.Errorf("the error shows it: %v", err)
		}
	}
}

// However they are printed, in whatever they are inside of.
func TestNothingSecretIsPrinted(t *testing.T) {
	c := pencil(t)
	inside := struct {
		c Credentials
		v Verifier
		p *Credentials
	}{c, c.Verifier(), &c}
	var secret []string
	stored := c.Verifier().keys().stored
	for _, k := range []key{c.keys().client, c.keys().server, stored} {
		secret = append(secret, fmt.Sprint(k), fmt.Sprintf("%x", k), fmt.Sprintf("%q", k), base64.StdEncoding.EncodeToString(k[:]), string(k[:]), fmt.Sprintf("%#v", k))
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, it := range []any{c, &c, inside, &inside, []Credentials{c}, c.Verifier()} {
			text := fmt.Sprintf(verb, it)
			for _, s := range secret {
				if strings.Contains(text, s) || strings.Contains(text, strings.Trim(s, "[]")) {
					t.Errorf("%s shows %s", verb, text)
				}
			}
		}
	}
}

func FuzzParseVerifier(f *testing.F) {
	f.Add(rfcVerifier)
	f.Add("md5d41d8cd98f00b204e9800998ecf8427e")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVerifier(text)
		if err != nil || v.Kind != KindSCRAM {
			return
		}
		again, err := ParseVerifier(v.Text())
		if err != nil || again.Text() != v.Text() {
			t.Fatalf("%q is read as %q, and that as %q, %v", text, v.Text(), again.Text(), err)
		}
	})
}

func FuzzServer(f *testing.F) {
	f.Add(false, Mechanism, rfcFirst, rfcFinal)
	f.Add(true, MechanismPlus, "p=tls-server-end-point,,n=,r=x", "c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsY2VydA==,r=xs,y=1,p="+zeroKey)
	f.Add(true, Mechanism, "y,,n=,r=x", "")
	f.Fuzz(func(t *testing.T, tls bool, mechanism, first, final string) {
		ch := Channel{}
		if tls {
			ch.EndPoint = []byte("cert")
		}
		s := NewServer(ch, rfcServerNonce)
		if s.First(mechanism, []byte(first)) != nil {
			return
		}
		v := pencilVerifier
		challenge := s.Challenge(v)
		if s.Final([]byte(final)) != nil {
			return
		}
		if !strings.HasPrefix(final, s.finalBare+",p=") {
			t.Fatalf("%q: %q is not what stands before the proof", final, s.finalBare)
		}
		if _, _, ok := s.Check("user", v); ok && (first != rfcFirst || final != rfcFinal) {
			t.Fatalf("a proof without the password: %q, %q, %q", first, challenge, final)
		}
		if _, _, ok := s.Check("user", MockLike([]byte("s"), "user", v.Salt, v.Iterations)); ok {
			t.Fatal("a proof of a mock")
		}
	})
}

var pencilVerifier = func() Verifier {
	v, err := ParseVerifier(rfcVerifier)
	if err != nil {
		panic(err)
	}
	return v
}()

func FuzzClient(f *testing.F) {
	f.Add(false, string(Offer([]string{Mechanism})), rfcChallenge, rfcSignature)
	f.Add(true, string(Offer([]string{MechanismPlus, Mechanism})), "r="+rfcClientNonce+"s,s="+rfcSalt+",i=1,x=2", "e=other-error")
	f.Fuzz(func(t *testing.T, tls bool, offer, challenge, signature string) {
		ch := Channel{}
		if tls {
			ch.EndPoint = []byte("cert")
		}
		c := NewClient(ch, rfcClientNonce)
		if _, err := c.Request(request(CodeSASL, offer)); err != nil {
			return
		}
		if _, err := c.Request(request(CodeSASLContinue, challenge)); err != nil {
			return
		}
		if _, err := c.Answer(Credentials{User: "user", keys: keys{salt: c.Asked().Salt, iterations: c.Asked().Iterations, server: key{1}}.sealed()}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Request(request(CodeSASLFinal, signature)); err == nil {
			t.Fatalf("a server that knows nothing is believed: %q, %q", challenge, signature)
		}
		if _, err := c.Request(request(CodeOK, "")); err == nil || c.Done() {
			t.Fatal("accepted without a signature")
		}
	})
}

func FuzzParseInitial(f *testing.F) {
	f.Add([]byte("SCRAM-SHA-256\x00\x00\x00\x00\x02n,"))
	f.Add([]byte("SCRAM-SHA-256\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := ParseInitial(body); err == nil && len(r.Data)+len(r.Mechanism)+5 != len(body) {
			t.Fatalf("%q: %+v", body, r)
		}
	})
}

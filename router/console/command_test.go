package console

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text string
		want Command
		code string // of an error
		word string // in it
	}{
		{"", Command{}, "", ""},
		{" ; ;\n", Command{}, "", ""},
		{"-- nothing", Command{}, "", ""},
		{"SHOW POOLS", Command{Verb: Show, Topic: "POOLS"}, "", ""},
		{"show pools;", Command{Verb: Show, Topic: "POOLS"}, "", ""},
		{"\tSHow /* all */ stats_totals ;; -- please", Command{Verb: Show, Topic: "STATS_TOTALS"}, "", ""},
		{"pause", Command{Verb: Pause}, "", ""},
		{"Resume;", Command{Verb: Resume}, "", ""},
		{"RELOAD", Command{Verb: Reload}, "", ""},
		{"SHUTDOWN", Command{Verb: Shutdown}, "", ""},
		{"KILL 17", Command{Verb: Kill, Client: 17}, "", ""},
		{"kill_client 17;", Command{Verb: Kill, Client: 17}, "", ""},
		{"KILL '17'", Command{Verb: Kill, Client: 17}, "", ""},
		{"SET application_name = 'pgAdmin; 4'", Command{Verb: Set}, "", ""},
		{"set session extra_float_digits to 3", Command{Verb: Set}, "", ""},

		{"SHOW", Command{}, "42601", "POOLS"},
		{"SHOW TABLES", Command{}, "42704", "TOPOLOGY"},
		{"SHOW 'POOLS'", Command{}, "42704", "POOLS"},
		{"SHOW POOLS CLIENTS", Command{}, "42601", "one word"},
		{"SHOW POOLS; SHOW CLIENTS", Command{}, "42601", "one after the other"},
		{"SELECT 1", Command{}, "42601", "SHOW HELP"},
		{"\"SHOW\" POOLS", Command{}, "42601", "SHOW HELP"},
		{"KILL", Command{}, "42601", "SHOW CLIENTS"},
		{"KILL -1", Command{}, "42601", "SHOW CLIENTS"},
		{"KILL 18446744073709551616", Command{}, "42601", "SHOW CLIENTS"},
		{"KILL 1 2", Command{}, "42601", "SHOW CLIENTS"},
		{"PAUSE shop", Command{}, "42601", "whole router"},
		{"RELOAD now", Command{}, "42601", "alone"},
		{"SET max_clients = 7", Command{}, "42704", "RELOAD"},
		{"SET application_name", Command{}, "42601", ""},
		{"SHOW 'POOLS", Command{}, "42601", "unterminated"},
	} {
		got, err := Parse(c.text)
		switch {
		case c.code == "" && err != nil:
			t.Errorf("%q: %v", c.text, err)
		case c.code != "" && err == nil:
			t.Errorf("%q: no error", c.text)
		case err != nil && (err.Code != c.code || err.Severity != "ERROR" || !strings.Contains(err.Message+err.Hint, c.word)):
			t.Errorf("%q: %+v", c.text, err)
		case got != c.want:
			t.Errorf("%q: %+v", c.text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"SHOW POOLS;", "kill 7 -- x", "set a='b'", "/* */;", "pause \"x\"", "SHOW\x00", "shöw"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			if len(err.Code) != 5 || err.Message == "" || c != (Command{}) {
				t.Fatalf("%q: %+v with %+v", text, err, c)
			}
			return
		}
		if _, known := shown[c.Topic]; (c.Verb == Show) != known {
			t.Fatalf("%q: %+v", text, c)
		}
		// Case and a semicolon make no difference.
		if utf8.ValidString(text) && !strings.ContainsAny(text, "'\"*-") {
			if again, err := Parse(strings.ToLower(text) + ";"); err != nil && c.Verb != Nothing || again != c {
				t.Fatalf("%q: %+v, in lower case %+v %v", text, c, again, err)
			}
		}
	})
}

// What SHOW HELP says is what there is.
func TestHelpIsTrue(t *testing.T) {
	helped := map[Topic]bool{"HELP": true}
	for _, row := range showHelp(View{}).rows {
		for _, text := range strings.Split(row[0].(string), ", ") {
			text = strings.Replace(text, "id", "1", 1)
			if text == strings.ToUpper(text) && !strings.Contains(text, " ") && strings.HasPrefix(text, "STATS") {
				text = "SHOW " + text
			}
			c, err := Parse(text)
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			if c.Topic != "" {
				helped[c.Topic] = true
			}
		}
	}
	for topic := range shown {
		if !helped[topic] {
			t.Errorf("SHOW HELP does not speak of %s", topic)
		}
	}
}

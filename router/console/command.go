package console

import (
	"strconv"
	"strings"

	"howdah/router/wire"
)

// Verb is what a statement asks for.
type Verb string

// The verbs. The value is the tag of CommandComplete.
const (
	Nothing  Verb = "" // an empty statement
	Show     Verb = "SHOW"
	Pause    Verb = "PAUSE"
	Resume   Verb = "RESUME"
	Reload   Verb = "RELOAD"
	Kill     Verb = "KILL"
	Shutdown Verb = "SHUTDOWN"
	Set      Verb = "SET" // what drivers set when they connect; has no effect here
)

// Command is one statement.
type Command struct {
	Verb Verb
	// Topic is of a Show.
	Topic Topic
	// Client is of a Kill.
	Client uint64
}

// Changes reports whether c does more than show.
func (c Command) Changes() bool { return c.Verb != Nothing && c.Verb != Show && c.Verb != Set }

// words that drivers set by themselves: what they are makes no difference to what the console says.
var harmless = map[string]bool{
	"application_name": true, "bytea_output": true, "client_encoding": true, "client_min_messages": true, "datestyle": true,
	"extra_float_digits": true, "intervalstyle": true, "standard_conforming_strings": true, "timezone": true,
}

// Parse reads one statement, with or without semicolons behind it. Words are the same in upper and lower case.
func Parse(text string) (Command, *wire.Error) {
	tokens, err := split(text)
	if err != nil {
		return Command{}, err
	}
	if len(tokens) == 0 {
		return Command{}, nil
	}
	verb, rest := Verb(tokens[0].upper()), tokens[1:]
	switch verb {
	case Show:
		return parseShow(rest)
	case Set:
		return parseSet(rest)
	case Kill, "KILL_CLIENT":
		return parseKill(rest)
	case Pause, Resume:
		if len(rest) > 0 {
			return Command{}, failed(codeSyntaxError, "%s takes no name", verb).
				WithHint("It is for the whole router: %s;", verb)
		}
	case Reload, Shutdown:
		if len(rest) > 0 {
			return Command{}, failed(codeSyntaxError, "syntax error at or near \"%s\"", rest[0].text).WithHint("Want %s alone.", verb)
		}
	default:
		return Command{}, failed(codeSyntaxError, "the console has no command \"%s\"", tokens[0].text).
			WithHint("This is the router's console, not a database; SHOW HELP lists its commands.")
	}
	return Command{Verb: verb}, nil
}

func parseShow(rest []token) (Command, *wire.Error) {
	if len(rest) == 0 {
		return Command{}, failed(codeSyntaxError, "SHOW what?").WithHint("Choose from %s.", topicNames())
	}
	if len(rest) > 1 {
		return Command{}, failed(codeSyntaxError, "syntax error at or near \"%s\"", rest[1].text).WithHint("Want SHOW and one word.")
	}
	topic := Topic(rest[0].upper())
	if _, known := shown[topic]; !known {
		return Command{}, failed(codeUndefinedObject, "SHOW knows no \"%s\"", rest[0].text).WithHint("Choose from %s.", topicNames())
	}
	return Command{Verb: Show, Topic: topic}, nil
}

func parseSet(rest []token) (Command, *wire.Error) {
	if len(rest) > 0 && (rest[0].upper() == "SESSION" || rest[0].upper() == "LOCAL") {
		rest = rest[1:]
	}
	if len(rest) < 3 || rest[1].text != "=" && rest[1].upper() != "TO" {
		return Command{}, failed(codeSyntaxError, "SET wants a name, = or TO, and a value")
	}
	if !harmless[strings.ToLower(rest[0].text)] {
		return Command{}, failed(codeUndefinedObject, "the console sets no \"%s\"", rest[0].text).
			WithHint("Change the router's options where they come from, then RELOAD.")
	}
	return Command{Verb: Set}, nil
}

func parseKill(rest []token) (Command, *wire.Error) {
	if len(rest) == 1 {
		if id, err := strconv.ParseUint(rest[0].text, 10, 64); err == nil {
			return Command{Verb: Kill, Client: id}, nil
		}
	}
	return Command{}, failed(codeSyntaxError, "KILL wants one client's number").WithHint("SHOW CLIENTS has it in the column id.")
}

// token is one word, number, quoted text or sign.
type token struct {
	text   string
	quoted bool
}

// upper is the token as a keyword; what was quoted is none.
func (t token) upper() string {
	if t.quoted {
		return ""
	}
	return strings.ToUpper(t.text)
}

const spaces = " \t\r\n\f\v"

// split cuts a statement into tokens and drops comments and the semicolons at its end.
func split(text string) ([]token, *wire.Error) {
	var tokens []token
	ended := false
	for {
		text = strings.TrimLeft(text, spaces)
		rest, comment := skipComment(text)
		switch {
		case text == "":
			return tokens, nil
		case comment:
			text = rest
			continue
		case text[0] == ';':
			ended = ended || len(tokens) > 0
			text = text[1:]
			continue
		case ended:
			return nil, failed(codeSyntaxError, "more than one statement at a time").WithHint("Send one after the other.")
		}
		t, rest, err := next(text)
		if err != nil {
			return nil, err
		}
		tokens, text = append(tokens, t), rest
	}
}

// skipComment takes off a comment; one without an end goes to the end.
func skipComment(text string) (rest string, found bool) {
	switch {
	case strings.HasPrefix(text, "--"):
		_, rest, _ = strings.Cut(text, "\n")
		return rest, true
	case strings.HasPrefix(text, "/*"):
		_, rest, _ = strings.Cut(text[2:], "*/")
		return rest, true
	}
	return text, false
}

// next takes off one token of a text that begins with one.
func next(text string) (token, string, *wire.Error) {
	if quote := text[0]; quote == '\'' || quote == '"' {
		inside, rest, closed := strings.Cut(text[1:], string(quote))
		if !closed {
			return token{}, "", failed(codeSyntaxError, "unterminated quoted text at or near \"%s\"", text)
		}
		return token{inside, true}, rest, nil
	}
	n := 0
	for n < len(text) && isWord(text[n]) {
		n++
	}
	n = max(n, 1)
	return token{text: text[:n]}, text[n:], nil
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '.' || c == '-' || c >= 0x80
}

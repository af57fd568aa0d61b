package options

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

const environmentPrefix = "HOWDAH_"

// Sources are where Load looks.
type Sources struct {
	// Flags are the flags that were given: name without dashes to text. Flags that were not given are missing.
	Flags map[string]string
	// Environ is as os.Environ returns it.
	Environ []string
	// ReadFile reads the file that --config names.
	ReadFile func(name string) ([]byte, error)
	// Elsewhere are options of other commands, with the command that takes each. As
	// environment variables they are allowed: an environment is inherited and shared.
	Elsewhere map[string]string
	// Partial says that not all flags could be read: then nothing is said about options that are missing.
	Partial bool
}

// Load sets every option from the sources and returns all mistakes at once as Problems.
func (s *Set) Load(from Sources) error {
	s.partial = from.Partial
	environment, found := s.readEnvironment(from)
	name, nameFrom := from.Flags[ConfigName], "flag --"+ConfigName
	if _, given := from.Flags[ConfigName]; !given {
		name, nameFrom = environment[ConfigName], "environment "+EnvironmentName(ConfigName)
	}
	// The sources are applied from the weakest to the strongest, so that each overwrites the one before.
	if name != "" {
		data, err := from.ReadFile(name)
		if err != nil {
			found = append(found, Problem{From: nameFrom, Advice: err.Error()})
			s.partial = true // what seems to be missing may stand there
		} else {
			found = append(found, s.readYAML(name, data, from)...)
		}
	}
	for _, o := range s.options {
		if text, given := environment[o.name]; given {
			found = append(found, s.set(o, "environment "+EnvironmentName(o.name), text)...)
		}
		if text, given := from.Flags[o.name]; given {
			found = append(found, s.set(o, "flag --"+o.name, text)...)
		}
	}
	return append(found, s.validate()...).orNil()
}

func (s *Set) set(o *Option, from, text string) Problems {
	o.from = from
	if err := o.parse(text); err != nil {
		s.failed = true
		return Problems{{From: from, Value: text, Advice: err.Error()}}
	}
	return nil
}

// readEnvironment returns option name to text. An empty variable counts as not set, because
// templates and unit files write one where they have no value.
func (s *Set) readEnvironment(from Sources) (map[string]string, Problems) {
	known := map[string]string{}
	for _, o := range s.options {
		known[EnvironmentName(o.name)] = o.name
	}
	elsewhere := map[string]bool{}
	for name := range from.Elsewhere {
		elsewhere[EnvironmentName(name)] = true
	}
	given, found := map[string]string{}, Problems(nil)
	for _, entry := range slices.Sorted(slices.Values(from.Environ)) {
		variable, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(variable, environmentPrefix) || text == "" {
			continue
		}
		name, isKnown := known[variable]
		switch {
		case isKnown:
			given[name] = text
		case elsewhere[variable] || foreign(variable, text):
		default:
			near := nearest(variable, slices.Sorted(maps.Keys(known)))
			// The value is not shown: the misspelt name may be that of a secret.
			found = append(found, Problem{From: "environment " + variable,
				Advice: "no option of howdah has this name" + suggestion(near) + orUnset(near)})
		}
	}
	return given, found
}

func orUnset(near string) string {
	if near != "" {
		return ""
	}
	return "; unset it, or see " + "howdah COMMAND --help for the names"
}

// links matches the names that Kubernetes and Docker make for a service called howdah or howdah-something. No
// option may have such a name; a test sees to it.
var links = regexp.MustCompile(`^HOWDAH_(\w+?_)??(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// linkAddress is what the plain PORT variable of a link holds; HOWDAH_PORT=5432 is somebody's mistake.
var linkAddress = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// foreign reports whether a variable with our prefix is none of ours: the tests' own, or a service link.
func foreign(variable, text string) bool {
	switch variable {
	case "HOWDAH_CONSUL_BIN", "HOWDAH_POSTGRES_BIN_DIR":
		return true
	}
	if strings.HasPrefix(variable, environmentPrefix+"TEST_") {
		return true
	}
	m := links.FindStringSubmatch(variable)
	return m != nil && (m[2] != "PORT" || linkAddress.MatchString(text))
}

// readYAML applies a file. Keys are taken in order of their names.
func (s *Set) readYAML(file string, data []byte, from Sources) Problems {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return s.unread(file, strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "yaml: "))
	}
	if string(asJSON) == "null" {
		return nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(asJSON, &values); err != nil {
		return s.unread(file, "want one `key: value` on each line")
	}
	var found Problems
	for _, key := range slices.Sorted(maps.Keys(values)) {
		found = append(found, s.readKey(file+": "+key, key, values[key], from)...)
	}
	return found
}

func (s *Set) unread(file, why string) Problems {
	s.partial = true // what seems to be missing may stand there
	return Problems{{From: file, Advice: why}}
}

func (s *Set) readKey(from, key string, raw json.RawMessage, sources Sources) Problems {
	name := strings.ReplaceAll(key, "_", "-")
	o := s.find(name)
	if o == nil || KeyName(name) != key {
		return Problems{{From: from, Advice: s.unknownKey(key, name, sources)}}
	}
	if o.secret {
		return Problems{{From: from, Advice: "secrets do not belong into this file; set " + EnvironmentName(name) + " or name a file that holds it"}}
	}
	if name == ConfigName {
		return Problems{{From: from, Advice: "a file cannot name another one"}}
	}
	text, items, advice := o.decode(raw)
	if advice != "" {
		s.failed = true
		return Problems{{From: from, Value: string(raw), Advice: advice}}
	}
	if items != nil {
		o.from = from
		o.items(items)
		return nil
	}
	return s.set(o, from, text)
}

func (s *Set) unknownKey(key, name string, sources Sources) string {
	if command, ok := sources.Elsewhere[name]; ok {
		return "is an option of " + command + ", not of " + s.command
	}
	var keys []string
	for _, o := range s.options {
		if !o.secret && o.name != ConfigName {
			keys = append(keys, KeyName(o.name))
		}
	}
	if near := nearest(key, keys); near != "" {
		return "unknown key" + suggestion(near)
	}
	return "unknown key; choose from " + strings.Join(keys, ", ")
}

// decode turns a value of the file into text or items; advice is not empty where the value is of the wrong kind.
// YAML turns unquoted words into numbers and booleans (0123 becomes 83, on becomes true), so those are
// refused where text is wanted rather than turned back into text that nobody wrote.
func (o *Option) decode(raw json.RawMessage) (text string, items []string, advice string) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return "", nil, err.Error()
	}
	switch v := value.(type) {
	case string:
		return v, nil, ""
	case bool:
		if o.boolean {
			return fmt.Sprint(v), nil, ""
		}
		return "", nil, "this is a boolean in YAML; put it in quotes"
	case json.Number:
		switch {
		case o.number:
			return v.String(), nil, ""
		case o.boolean:
			return "", nil, "choose true or false"
		}
		return "", nil, "this is a number in YAML; put what you mean in quotes"
	case []any:
		return o.decodeList(v)
	case nil:
		return "", nil, "has no value; remove the key or give it one"
	}
	return "", nil, "want one value, not keys below it"
}

func (o *Option) decodeList(values []any) (text string, items []string, advice string) {
	if o.items == nil {
		return "", nil, "want one value, not a list"
	}
	items = []string{}
	for _, v := range values {
		item, isText := v.(string)
		if !isText || strings.Contains(item, ",") || strings.TrimSpace(item) == "" {
			return "", nil, "want a list of texts that are not empty and hold no comma; put numbers in quotes"
		}
		items = append(items, strings.TrimSpace(item))
	}
	return "", items, ""
}

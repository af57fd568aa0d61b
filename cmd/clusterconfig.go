package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"howdah/consul/schema"
	"howdah/sidecar/postgres"
)

// readClusterConfig changes config by what a YAML document says. Key by key, so that all mistakes are found
// and each names its key.
func readClusterConfig(data []byte, config *schema.ClusterConfig) error {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return err
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(asJSON, &values); err != nil {
		return errors.New("want one `key: value` on each line")
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := setKey(config, key, values[key]); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return checkClusterConfig(*config)
	}
	return errors.Join(errs...)
}

// checkClusterConfig is asked before a configuration is written anywhere.
func checkClusterConfig(config schema.ClusterConfig) error {
	// Both name settings that howdah rules; one word about each is enough.
	if err := config.Validate(); err != nil {
		return err
	}
	return postgres.CheckConfig(config)
}

func setKey(config *schema.ClusterConfig, key string, value json.RawMessage) error {
	if !slices.Contains(configKeys(), key) {
		return fmt.Errorf("%s: there is no such key; choose from %s (settings of PostgreSQL stand under parameters)", key, strings.Join(configKeys(), ", "))
	}
	if key == "parameters" {
		var err error
		if value, err = parameterTexts(value); err != nil {
			return err
		}
	}
	switch key { // else the decoder writes into what the caller holds too
	case "hba":
		config.HBA = nil
	case "slots":
		config.Slots = nil
	case "follow":
		config.Follow = schema.Remote{} // what is not given is not to be kept
	}
	one, err := json.Marshal(map[string]json.RawMessage{key: value})
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(one))
	d.DisallowUnknownFields()
	if err := d.Decode(config); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return fmt.Errorf("%s: %s is not allowed; want %s", key, value, kindWords(kind.Type))
		}
		return fmt.Errorf("%s: %s is not allowed: %w", key, value, err)
	}
	return nil
}

func kindWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list of lines"
	case reflect.Struct:
		if t == reflect.TypeFor[schema.Remote]() {
			return "its keys in braces, such as {host: db1.example.com, port: 5432}"
		}
		return "{type: physical} or {type: logical, database: NAME, plugin: NAME}"
	case reflect.Map:
		return "name: value on lines of their own"
	case reflect.String:
		return "a text in quotes"
	}
	return "a whole number that is not negative"
}

// parameterTexts lets people write numbers and booleans without quotes: PostgreSQL's settings are all text.
func parameterTexts(value json.RawMessage) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var given map[string]any
	if err := d.Decode(&given); err != nil {
		return nil, fmt.Errorf("parameters: %s is not allowed; want name: value on lines of their own", value)
	}
	texts := map[string]string{}
	for name, v := range given {
		switch v := v.(type) {
		case string:
			texts[name] = v
		case json.Number:
			texts[name] = v.String()
		case bool:
			texts[name] = strconv.FormatBool(v)
		default:
			return nil, fmt.Errorf("parameters: the value of %s is not allowed; want a text, a number, true or false", name)
		}
	}
	return json.Marshal(texts)
}

// configKeys are the keys of a cluster configuration, in the order in which they are declared.
func configKeys() []string {
	var keys []string
	t := reflect.TypeFor[schema.ClusterConfig]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		keys = append(keys, name)
	}
	return keys
}

// writeClusterConfig is the YAML form, in the order in which the keys are declared.
func writeClusterConfig(config schema.ClusterConfig) (string, error) {
	b, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(b, &values); err != nil {
		return "", err
	}
	var text strings.Builder
	for _, key := range configKeys() {
		if values[key] == nil {
			continue
		}
		one, err := yaml.Marshal(map[string]json.RawMessage{key: values[key]})
		if err != nil {
			return "", err
		}
		text.Write(one)
	}
	return text.String(), nil
}

// assign changes config by one KEY=VALUE of the command line. A VALUE of null takes a parameter away, or gives a
// key its default again.
func assign(config *schema.ClusterConfig, word string) error {
	key, value, ok := strings.Cut(word, "=")
	if !ok {
		return fmt.Errorf("%q: want KEY=VALUE, such as lease=5s or parameters.work_mem=64MB", word)
	}
	if name, is := strings.CutPrefix(key, "parameters."); is {
		config.Parameters = maps.Clone(config.Parameters)
		if config.Parameters == nil {
			config.Parameters = map[string]string{}
		}
		if value == "null" {
			if _, set := config.Parameters[name]; !set {
				return fmt.Errorf("parameters.%s: is not set, so there is nothing to take away", name)
			}
			delete(config.Parameters, name)
			return nil
		}
		config.Parameters[name] = value
		return nil
	}
	if name, is := strings.CutPrefix(key, "slots."); is {
		return assignSlot(config, name, value)
	}
	asJSON, err := yaml.YAMLToJSONStrict([]byte(value))
	if err != nil {
		return fmt.Errorf("%s: %q cannot be read: %w", key, value, err)
	}
	if string(bytes.TrimSpace(asJSON)) == "null" {
		defaults, err := json.Marshal(schema.DefaultClusterConfig())
		if err != nil {
			return err
		}
		var values map[string]json.RawMessage
		if err := json.Unmarshal(defaults, &values); err != nil {
			return err
		}
		if asJSON = values[key]; asJSON == nil { // the key's default is not to be there
			return unset(config, key)
		}
	}
	if key == "parameters" {
		config.Parameters = nil // the whole map is replaced
	}
	return setKey(config, key, asJSON)
}

// assignSlot changes one permanent slot, written as {type: physical} in YAML.
func assignSlot(config *schema.ClusterConfig, name, value string) error {
	all := map[string]json.RawMessage{}
	for other, slot := range config.Slots {
		b, err := json.Marshal(slot)
		if err != nil {
			return err
		}
		all[other] = b
	}
	if value == "null" {
		if _, set := all[name]; !set {
			return fmt.Errorf("slots.%s: is not set, so there is nothing to take away", name)
		}
		delete(all, name)
	} else {
		asJSON, err := yaml.YAMLToJSONStrict([]byte(value))
		if err != nil {
			return fmt.Errorf("slots.%s: %q cannot be read: %w", name, value, err)
		}
		all[name] = asJSON
	}
	whole, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return setKey(config, "slots", whole)
}

// unset gives a key the value that it has where it is not written.
func unset(config *schema.ClusterConfig, key string) error {
	t := reflect.TypeFor[schema.ClusterConfig]()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name == key {
			reflect.ValueOf(config).Elem().Field(i).SetZero()
			return nil
		}
	}
	return setKey(config, key, nil) // says that there is no such key
}

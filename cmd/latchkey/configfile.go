package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// configFileMax bounds a configuration file, in bytes.
const configFileMax = 1 << 20

// fileSections are the keys of etcd's configuration file that have keys below
// them, by the flags that these are; a dot stands for one level more. One that is
// "" has no effect for this kind of connection.
var fileSections = map[string]map[string]string{
	"client-transport-security": {
		"cert-file": "cert-file", "key-file": "key-file",
		"client-cert-file": "client-cert-file", "client-key-file": "client-key-file",
		"client-cert-auth": "client-cert-auth", "trusted-ca-file": "trusted-ca-file", "auto-tls": "auto-tls",
		"allowed-cn": "client-cert-allowed-cn", "allowed-hostname": "client-cert-allowed-hostname",
		"crl-file": "client-crl-file", "skip-client-san-verification": "",
	},
	"peer-transport-security": {
		"cert-file": "peer-cert-file", "key-file": "peer-key-file",
		"client-cert-file": "peer-client-cert-file", "client-key-file": "peer-client-key-file",
		"client-cert-auth": "peer-client-cert-auth", "trusted-ca-file": "peer-trusted-ca-file", "auto-tls": "peer-auto-tls",
		"allowed-cn": "peer-cert-allowed-cn", "allowed-hostname": "peer-cert-allowed-hostname",
		"crl-file": "peer-crl-file", "skip-client-san-verification": "peer-skip-client-san-verification",
	},
	"socket-options": {"reuse-port": "socket-reuse-port", "reuse-address": "socket-reuse-address"},
	"discovery-config": {
		"token": "discovery-token", "client.endpoints": "discovery-endpoints",
		"client.dial-timeout": "discovery-dial-timeout", "client.request-timeout": "discovery-request-timeout",
		"client.keepalive-time": "discovery-keepalive-time", "client.keepalive-timeout": "discovery-keepalive-timeout",
		"client.secure.cert": "discovery-cert", "client.secure.key": "discovery-key", "client.secure.cacert": "discovery-cacert",
		"client.secure.insecure-transport":       "discovery-insecure-transport",
		"client.secure.insecure-skip-tls-verify": "discovery-insecure-skip-tls-verify",
		"client.auth.username":                   "discovery-user", "client.auth.password": "discovery-password",
	},
}

// goneKeys are those of older releases of etcd that still stand in many files.
var goneKeys = []string{
	"enable-v2", "proxy", "proxy-failure-wait", "proxy-refresh-interval", "proxy-dial-timeout", "proxy-write-timeout",
	"proxy-read-timeout",
}

// configFile collects the settings of one file.
type configFile struct {
	path     string
	given    map[string]setting
	warnings []string
}

// readConfigFile reads YAML, or JSON, which is YAML too.
func readConfigFile(path string) (map[string]setting, []string, error) {
	text, err := readBounded(path, configFileMax)
	if err != nil {
		return nil, nil, err
	}
	return parseConfigFile(path, text)
}

func parseConfigFile(path string, text []byte) (map[string]setting, []string, error) {
	c := &configFile{path: path, given: make(map[string]setting)}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, nil, err
	}
	if len(document.Content) == 0 { // nothing but comments
		return c.given, nil, nil
	}
	err := eachPair(document.Content[0], c.add)
	return c.given, c.warnings, err
}

// readBounded reads a file that may be of any kind, a device as well.
func readBounded(path string, most int64) (text []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err = io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("is larger than %d bytes", most)
	}
	return text, err
}

// eachPair calls add with the keys and values of a mapping.
func eachPair(n *yaml.Node, add func(key string, value *yaml.Node) error) error {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		return lineError{n.Line, errors.New("keys and values are expected here, as in: name: a")}
	}
	seen := make(map[string]bool)
	for pair := range slices.Chunk(n.Content, 2) {
		key := pair[0].Value
		if seen[key] {
			return lineError{pair[0].Line, fmt.Errorf("key %q is there twice", key)}
		}
		seen[key] = true
		var inner lineError
		if err := add(key, resolve(pair[1])); errors.As(err, &inner) {
			return err
		} else if err != nil {
			return lineError{pair[0].Line, err}
		}
	}
	return nil
}

// lineError says where in the file an error is.
type lineError struct {
	line int
	err  error
}

func (e lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e lineError) Unwrap() error { return e.err }

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias // which is never an alias itself
	}
	return n
}

// add takes a key at the top of the file.
func (c *configFile) add(key string, value *yaml.Node) error {
	if value.Kind == yaml.ScalarNode && value.Value == "" || value.Tag == "!!null" {
		return nil // as if it was not there
	}
	if section, ok := fileSections[key]; ok {
		return c.addBelow(key, "", section, value)
	}
	if slices.Contains(goneKeys, key) {
		c.warnings = append(c.warnings, fmt.Sprintf("%s: %s has no effect: etcd has dropped its v2 API, and so its proxy", c.path, key))
		return nil
	}
	if f, ok := findFlag(key); !ok || forCommandLine(f.name) {
		return unknownKey(key, fileKeys(), "")
	}
	return c.set(key, key, value)
}

// addBelow takes the keys below one of a section.
func (c *configFile) addBelow(key, prefix string, section map[string]string, value *yaml.Node) error {
	return eachPair(value, func(below string, value *yaml.Node) error {
		path := prefix + below
		if flag, ok := section[path]; ok {
			return c.set(flag, key+"."+path, value)
		}
		var near []string
		for known := range section {
			if strings.HasPrefix(known, path+".") {
				return c.addBelow(key, path+".", section, value)
			}
			if last, ok := strings.CutPrefix(known, prefix); ok && !strings.Contains(last, ".") {
				near = append(near, last)
			}
		}
		return unknownKey(below, near, strings.TrimSuffix(key+"."+prefix, "."))
	})
}

// fileKeys returns the keys that may stand at the top of a file.
func fileKeys() []string {
	var keys []string
	for section := range fileSections {
		keys = append(keys, section)
	}
	for _, f := range allFlags() {
		if !forCommandLine(f.name) {
			keys = append(keys, f.name)
		}
	}
	return keys
}

// forCommandLine says whether a flag makes no sense in a file.
func forCommandLine(name string) bool {
	return name == "config-file" || name == "help" || name == "version"
}

func unknownKey(key string, candidates []string, section string) error {
	where := ""
	if section != "" {
		where = " in " + section
	}
	near, ok := nearest(strings.TrimPrefix(strings.ReplaceAll(key, "_", "-"), "experimental-"), candidates)
	if ok {
		return fmt.Errorf("unknown key %q%s, did you mean %q?", key, where, near)
	}
	return fmt.Errorf("unknown key %q%s: the keys are the names of the flags", key, where)
}

// set stores the value of a flag as its text. A list is the same as one text
// with commas, and a whole number is nanoseconds where a flag has a duration.
func (c *configFile) set(flag, key string, value *yaml.Node) error {
	var parts []string
	switch value.Kind {
	case yaml.ScalarNode:
		parts = []string{value.Value}
	case yaml.SequenceNode:
		for _, item := range value.Content {
			item = resolve(item)
			if item.Kind != yaml.ScalarNode || strings.Contains(item.Value, ",") {
				return fmt.Errorf("%s is not a list of texts", key)
			}
			parts = append(parts, item.Value)
		}
	default:
		return fmt.Errorf("%s has no keys below it", key)
	}
	text := strings.Join(parts, ",")
	source := c.path + ": " + key
	if flag == "" {
		c.warnings = append(c.warnings, source+" has no effect: it is about connections that members open to each other")
		return nil
	}
	if value.Tag == "!!null" || text == "" {
		return nil
	}
	if f, _ := findFlag(flag); f.value == "DURATION" && value.Tag == "!!int" {
		text += "ns"
	}
	c.given[flag] = setting{source, text}
	return nil
}

package pubsub

import (
	"errors"
	"fmt"
)

// Conditions to test for with errors.Is.
var (
	// ErrName: the name can not be one of a topic, group, cursor or service. See
	// "Keys" in the package's documentation.
	ErrName = errors.New("name can not be used")
	// ErrNoTopic: the topic does not exist, or was deleted.
	ErrNoTopic = errors.New("topic does not exist")
	// ErrUnbounded: a topic is to be made that keeps its messages for ever, and
	// Unlimited was not given.
	ErrUnbounded = errors.New("topic has no bound")
	// ErrConfig: the topic exists with other settings. A [*ConfigError] tells them.
	ErrConfig = errors.New("topic exists with other settings")
	// ErrKubernetes: the cluster holds the keys of Kubernetes, and
	// BesideKubernetes was not given.
	ErrKubernetes = errors.New("cluster belongs to Kubernetes")
	// ErrTooLarge: a message is larger than MessageBytesMax.
	ErrTooLarge = errors.New("message is too large")
	// ErrDuplicate: a message with the dedup id was published before, and is not
	// again. A [*DuplicateError] tells where it is.
	ErrDuplicate = errors.New("message was published before")
	// ErrClosed: the publisher was closed.
	ErrClosed = errors.New("publisher is closed")
	// ErrSlow: a subscriber with the policy SlowError fell behind.
	ErrSlow = errors.New("subscriber is too slow")
	// ErrTaken: another process has begun to use the durable name.
	ErrTaken = errors.New("durable name is used by another process")
	// ErrLost: the partition belongs to another member of the group, or to none.
	// It is the cause with which a handler's context ends.
	ErrLost = errors.New("partition is lost")
	// ErrNoCursor: Tx of a message that belongs to no cursor.
	ErrNoCursor = errors.New("message has no cursor to commit")
	// ErrCrashed is the reason of a dead letter whose handler never returned: its
	// process died with it, again and again.
	ErrCrashed = errors.New("the process ended while it handled the message")
	// ErrNoServer: no server of the service is there.
	ErrNoServer = errors.New("service has no server")
	// ErrRemote: the service's handler returned an error. A [*RemoteError] has its
	// text.
	ErrRemote = errors.New("service returned an error")
)

// ConfigError tells how a topic was made. It is [ErrConfig].
type ConfigError struct {
	Topic      string
	Partitions int
	Retention  Retention
}

// Error tells the settings of the topic.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("topic %q exists with %d partitions and %s", e.Topic, e.Partitions, e.Retention)
}

// Is makes the error ErrConfig.
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// DuplicateError tells where the first message with a dedup id is. It is
// [ErrDuplicate].
type DuplicateError struct {
	ID     string
	Offset Offset
}

// Error tells the id and the offset.
func (e *DuplicateError) Error() string {
	return fmt.Sprintf("message %q was published before, at offset %s", e.ID, e.Offset)
}

// Is makes the error ErrDuplicate.
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }

// DecodeError: a message is no T, or its record is damaged. Subscriptions yield it
// with the message and go on; a group makes it a dead letter.
type DecodeError struct {
	Topic  string
	Offset Offset
	Err    error
}

// Error tells the message and what the codec said.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("decode message %s of topic %q: %v", e.Offset, e.Topic, e.Err)
}

// Unwrap returns the codec's error.
func (e *DecodeError) Unwrap() error { return e.Err }

// RemoteError is an error that a service's handler returned. It is [ErrRemote].
type RemoteError struct{ Message string }

// Error is the handler's text.
func (e *RemoteError) Error() string { return "service: " + e.Message }

// Is makes the error ErrRemote.
func (e *RemoteError) Is(target error) bool { return target == ErrRemote }

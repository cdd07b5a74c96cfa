package discovery

import (
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
)

// Conditions to test for with errors.Is.
var (
	// ErrDuplicateID: another instance has the id. A [*DuplicateError] tells which.
	ErrDuplicateID = errors.New("id belongs to another instance")
	// ErrClosed is the cause of a registration's context after Close, and the
	// error of a Provider's calls after its own.
	ErrClosed = errors.New("closed")
	// ErrNoInstance: the service has no instance, or none with that id.
	ErrNoInstance = errors.New("no instance")
	// ErrName: the name can not be one of a service, or the id not one of an
	// instance. See "Keys" in the package's documentation.
	ErrName = errors.New("name can not be used")
)

// DuplicateError tells who has the id. It is [ErrDuplicateID].
type DuplicateError struct {
	Service, ID string
	Addr        string         // of the other instance; empty when its value can not be read
	Lease       client.LeaseID // that the other one lives with; zero for none
}

// Error tells the id and who has it.
func (e *DuplicateError) Error() string {
	return fmt.Sprintf("service %q: id %q belongs to another instance, at %q with lease %s", e.Service, e.ID, e.Addr, e.Lease)
}

// Is makes the error ErrDuplicateID.
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicateID }

package state

import "errors"

// Conditions that a command about users and roles can meet, or one of a user who may not give it.
var (
	// ErrRootUserNotExist: users can not be needed while there is no user root.
	ErrRootUserNotExist = errors.New("root user does not exist")
	// ErrRootRoleNotExist: nor while it does not have the role root.
	ErrRootRoleNotExist = errors.New("root user does not have root role")
	// ErrUserAlreadyExist: there is a user of that name.
	ErrUserAlreadyExist = errors.New("user already exists")
	// ErrUserEmpty: a user is needed and none is named.
	ErrUserEmpty = errors.New("user name is empty")
	// ErrUserNotFound: there is no user of that name.
	ErrUserNotFound = errors.New("user not found")
	// ErrRoleAlreadyExist: there is a role of that name.
	ErrRoleAlreadyExist = errors.New("role already exists")
	// ErrRoleEmpty: the role has no name.
	ErrRoleEmpty = errors.New("role name is empty")
	// ErrRoleNotFound: there is no role of that name.
	ErrRoleNotFound = errors.New("role not found")
	// ErrPermissionNotGiven: the request has no permission in it.
	ErrPermissionNotGiven = errors.New("permission not given")
	// ErrAuthFailed: the user does not exist, or the password is not his.
	ErrAuthFailed = errors.New("authentication failed")
	// ErrNoPasswordUser: the user has no password, or the hash is malformed. The text is etcd's, which sends it as it is.
	ErrNoPasswordUser = errors.New("auth: authentication failed, password was given for no password user")
	// ErrPermissionDenied: the user may not do that.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrRoleNotGranted: the user does not have the role.
	ErrRoleNotGranted = errors.New("role is not granted to the user")
	// ErrPermissionNotGranted: the role does not have the permission.
	ErrPermissionNotGranted = errors.New("permission is not granted to the role")
	// ErrAuthNotEnabled: users are not needed.
	ErrAuthNotEnabled = errors.New("authentication is not enabled")
	// ErrAuthOldRevision: users or roles have changed since the caller was told to be who he is.
	ErrAuthOldRevision = errors.New("revision of users and roles is old")
	// ErrInvalidAuthMgmt: the permission's range is malformed, or root would be locked out.
	ErrInvalidAuthMgmt = errors.New("invalid auth management")
)

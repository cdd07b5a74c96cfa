package rpc

import (
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/latchkey-go/latchkey/server/internal/auth"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// authWire is wire for what concerns users and roles. state.ErrNoPasswordUser is not in it, as in etcd.
var authWire = []struct{ from, to error }{
	{state.ErrRootUserNotExist, rpctypes.ErrGRPCRootUserNotExist},
	{state.ErrRootRoleNotExist, rpctypes.ErrGRPCRootRoleNotExist},
	{state.ErrUserAlreadyExist, rpctypes.ErrGRPCUserAlreadyExist},
	{state.ErrUserEmpty, rpctypes.ErrGRPCUserEmpty},
	{state.ErrUserNotFound, rpctypes.ErrGRPCUserNotFound},
	{state.ErrRoleAlreadyExist, rpctypes.ErrGRPCRoleAlreadyExist},
	{state.ErrRoleNotFound, rpctypes.ErrGRPCRoleNotFound},
	{state.ErrRoleEmpty, rpctypes.ErrGRPCRoleEmpty},
	{state.ErrAuthFailed, rpctypes.ErrGRPCAuthFailed},
	{state.ErrPermissionNotGiven, rpctypes.ErrGRPCPermissionNotGiven},
	{state.ErrPermissionDenied, rpctypes.ErrGRPCPermissionDenied},
	{state.ErrRoleNotGranted, rpctypes.ErrGRPCRoleNotGranted},
	{state.ErrPermissionNotGranted, rpctypes.ErrGRPCPermissionNotGranted},
	{state.ErrAuthNotEnabled, rpctypes.ErrGRPCAuthNotEnabled},
	{state.ErrInvalidAuthMgmt, rpctypes.ErrGRPCInvalidAuthMgmt},
	{state.ErrAuthOldRevision, rpctypes.ErrGRPCAuthOldRevision},
	{errInvalidToken, rpctypes.ErrGRPCInvalidAuthToken},
	{auth.ErrBusy, rpctypes.ErrGRPCRequestTooManyRequests},
}

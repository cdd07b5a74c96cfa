// Package auth tells who a caller is and what his request needs: passwords, tokens, and the table of rights, which has a
// row for every method that a member serves. Users and roles themselves are part of the replicated state.
package auth

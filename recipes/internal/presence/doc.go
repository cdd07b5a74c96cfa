// Package presence keeps one key in the store for as long as its owner wants it
// there: attached to a session, put back when somebody deletes it, put back under
// the next session when one is lost, and never taken from somebody else.
//
// A key is ours if its value says so: the recipe puts an incarnation into it,
// random and new for each [Keep], and recognizes it in Config.Mine. That holds
// over sessions, so a key whose old lease has not ended yet is moved to the new
// one without a gap that others could see. A value that others have edited is
// ours as long as the incarnation is there, and is what is kept from then on.
//
// One goroutine owns the key. It makes one change at a time, each under the
// condition that the key is as it was last seen, and repeats it until its outcome
// is known; so a request whose answer was lost does no harm when it arrives late.
// The one exception is a creation, as a key that is not there looks the same
// before the first and after the last: for half a minute after a creation without
// an answer, a removed key is watched for and removed again.
package presence

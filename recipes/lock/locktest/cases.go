package locktest

import "testing"

// named is one case.
type named struct {
	name    string
	run     func(t *testing.T, h *harness)
	repeats string // what others have got wrong here, and where that is told
}

// cases are about one lock, and what can go wrong with it.
var cases = []named{
	{"Exclusion/Clients", testExclusionOfClients, ""},
	{"Exclusion/Goroutines", testExclusionOfGoroutines, "etcd 11360: goroutines that share a session all hold the lock"},
	{"Exclusion/Queue", testQueueOrder, ""},
	{"Try/FreeAndHeld", testTry, ""},
	{"Try/Contended", testTryContended, ""},
	{"Do/Results", testDo, ""},
	{"Do/Loss", testDoLoss, ""},
	{"Do/Panic", testDoPanic, ""},
	{"Held/Handle", testHandle, ""},
	{"Held/OutlivesAcquire", testOutlivesAcquire, ""},
	{"Held/GuardedTransactions", testGuarded, "a guard and the caller's own condition give one answer in every peer"},
	{"Held/StaleHolder", testStaleHolder, "etcd 11457, Jepsen's report on 3.4.3: a holder that was paused writes after its lock has passed on"},
	{"Held/ReleaseTwice", testReleaseTwice, ""},
	{"Loss/KeyDeleted", testKeyDeleted, "etcd 6127: a holder whose key is deleted never learns of it"},
	{"Loss/SessionClosed", testSessionClosed, ""},
	{"Loss/LeaseRevoked", testLeaseRevoked, ""},
	{"Loss/WaiterSession", testWaiterSession, "etcd 9921, 16221: a waiter whose session has ended gets the lock"},
	{"Loss/WaiterKeyDeleted", testWaiterKeyDeleted, ""},
	{"Loss/PredecessorLeaves", testPredecessorLeaves, ""},
	{"Cancel/Waiting", testCancelWaiting, ""},
	{"Cancel/InFlight", testCancelInFlight, "etcd 9715 and 21128, Curator 79 and 315: a call that was cancelled leaves its key in the queue"},
	{"Cancel/Anywhere", testCancelAnywhere, "etcd 10111: a call that was cancelled returns success"},
	{"Answers/CreateDropped", testCreateDropped, "Curator 604: a create whose answer was lost is not recognised, or a dead session's is"},
	{"Answers/CreateAbandoned", testCreateAbandoned, ""},
	{"Answers/CreateLate", testCreateLate, "a create that overtakes the deletion that was to undo it"},
	{"Answers/ReleaseDropped", testReleaseDropped, "Curator 678: a release whose answer was lost keeps this process from the lock for ever"},
	{"Answers/ReleaseLate", testReleaseLate, "etcd 22082: a late unlock deletes the key of the next acquisition"},
	{"Answers/EveryOneDropped", testEveryAnswerDropped, ""},
	{"Network/Cut", testNetworkCut, "Consul 1162, 985: locks are lost with the connection"},
	{"History/Compacted", testCompacted, "etcd 7815, 9715: a wait hangs or leaves its key when history is compacted"},
	{"History/CompactedUnseen", testCompactedUnseen, ""},
	{"History/BothGoneUnseen", testBothGoneUnseen, ""},
	{"Names/Nested", testNested, "etcd website 710: etcdctl lock path hangs as path/1 exists"},
	{"Names/ManyNested", testManyNested, ""},
	{"Names/NestedCompacted", testNestedCompacted, ""},
	{"Names/NestedRace", testNestedRace, ""},
	{"Names/Invalid", testInvalidNames, ""},
	{"Names/Conflicts", testConflicts, "two recipes under one name, without anybody noticing"},
	{"Inspect", testInspect, ""},
	{"ForeignKey", testForeignKey, ""},
}

// featureCases are about what is built on that.
var featureCases = []named{
	{"All/Together", testAllTogether, ""},
	{"All/OrNone", testAllOrNone, "Curator's InterProcessMultiLock goes on taking locks after one has failed"},
	{"All/OneLost", testAllLost, ""},
	{"All/Random", testAllRandom, "Curator's InterProcessSemaphoreV2 takes leases one by one: two callers wait for each other for ever"},
	{"All/EveryAnswerDropped", testAllAnswersDropped, ""},
	{"Reentrant/Shared", testReentrant, ""},
	{"Reentrant/OnlyByContext", testReentrantOnlyByContext, ""},
	{"Reentrant/Loss", testReentrantLoss, ""},
	{"Operate/RequestRelease", testRequestRelease, "Consul 985, 1843: nobody can ask a holder to let go"},
	{"Operate/Break", testBreak, ""},
	{"Operate/AnswersLost", testOperateAnswersLost, ""},
	{"Operate/ForeignKey", testOperateOnForeignKey, ""},
	{"Operate/Watch", testWatchInfo, ""},
	{"Operate/List", testList, ""},
	{"Delay/Unclean", testDelayUnclean, ""},
	{"Delay/Try", testDelayTry, ""},
	{"Delay/Clean", testDelayClean, ""},
	{"Delay/CancelAnywhere", testDelayCancelAnywhere, ""},
	{"Delay/WaiterLeaves", testDelayWaiterLeaves, ""},
	{"Delay/SameOwner", testDelaySameOwner, "Consul 430: a restarted holder has to wait for itself"},
	{"Cost/Uncontended", testCostUncontended, ""},
	{"Cost/Waiting", testCostWaiting, "Redlock's and pglock's waiters poll, Consul's all wake up at each release"},
	{"Loss/Detached", testDetached, ""},
	{"Loss/Blackhole", testBlackhole, "Consul 18271: the holder is told minutes after the lock has passed on"},
}

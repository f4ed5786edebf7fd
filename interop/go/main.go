// What a program in Go does with an event store, step by step, through the published client.
// Each step says what it expects; the first surprise ends the flow.
//
// LEFTFOLD_URL says where the server is; LEFTFOLD_RESTART is a command that kills it and starts it again.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/kurrent-io/KurrentDB-Client-Go/kurrentdb"
)

var (
	client *kurrentdb.Client
	ctx    = context.Background()
	run    = uuid.NewString()[:8]
)

func main() {
	url := os.Getenv("LEFTFOLD_URL")
	if url == "" {
		url = "kurrentdb://127.0.0.1:2113?tls=false"
	}
	settings, err := kurrentdb.ParseConnectionString(url)
	must(err)
	settings.Logger = func(kurrentdb.LogLevel, string, ...interface{}) {}
	// With its defaults, this client closes permanently when a server is away for a second.
	settings.MaxDiscoverAttempts = 100
	client, err = kurrentdb.NewClient(settings)
	must(err)
	defer client.Close()

	step("an account is opened and read in both directions", opened)
	step("a conflict is an error of its own", conflict)
	step("an append that is repeated is stored once, whatever it expected", repeated)
	step("bytes and metadata come back as they were", kept)
	step("a missing stream is an error of its own", missing)
	step("everything is read in both directions, from any position", everything)
	step("filters choose by type and by stream, by prefix and by expression", filtered)
	step("a subscription gives what is stored, says that it has caught up, and goes on live", followed)
	step("a subscription with a filter tells checkpoints, and one can go on from there", checkpoints)
	step("metadata bounds a stream, and keeps keys of one's own", bounded)
	step("ages, caching and rights come back as they were set", governed)
	step("a link leads to its event, also in a subscription, or shows itself", linked)
	step("a server is killed under appends and subscriptions: nothing is lost, nothing is delivered twice", killed)
	step("what was there before the server was killed still is", stillThere)
	step("a deleted stream comes back with its next event", deleted)
	step("a tombstone is permanent, and ends subscriptions", tombstoned)
	step("several streams are appended to at once, or none", several)
	step("records of several streams are appended with checks on others", records)
	step("checks of deleted and tombstoned streams are answered, and failing ones can be read", checks)
	step("an event id belongs to its stream", copied)
	step("a group is created once, found, changed and deleted", groupsManaged)
	step("a consumer acknowledges, retries, parks and skips, and gets what is replayed", groupsSettled)
	step("a server is killed under a group: every event is seen, and nothing is parked", groupsKilled)
	fmt.Println("the flow of the Go client is through")
}

func step(what string, body func()) {
	body()
	fmt.Println("ok ", what)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		panic(fmt.Sprintf("expected %v, got %v", wanted, got))
	}
}

func failsWith(code kurrentdb.ErrorCode, err error) {
	var known *kurrentdb.Error
	if !errors.As(err, &known) || known.Code() != code {
		panic(fmt.Sprintf("expected error code %d, got %v", code, err))
	}
}

func stream(name string) string { return "go_" + name + "-" + run }

func event(kind string, amount int) kurrentdb.EventData {
	data, err := json.Marshal(map[string]int{"amount": amount})
	must(err)
	return kurrentdb.EventData{
		EventID: uuid.New(), EventType: kind + "_" + run, ContentType: kurrentdb.ContentTypeJson, Data: data,
	}
}

func deposited(amount int) kurrentdb.EventData { return event("Deposited", amount) }

func appendTo(name string, state kurrentdb.StreamState, events ...kurrentdb.EventData) (*kurrentdb.WriteResult, error) {
	return client.AppendToStream(ctx, name, kurrentdb.AppendToStreamOptions{StreamState: state}, events...)
}

func collect(read *kurrentdb.ReadStream, err error) ([]*kurrentdb.ResolvedEvent, error) {
	if err != nil {
		return nil, err
	}
	defer read.Close()
	var all []*kurrentdb.ResolvedEvent
	for {
		next, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, next)
	}
}

func readStream(name string, options kurrentdb.ReadStreamOptions, count uint64) ([]*kurrentdb.ResolvedEvent, error) {
	return collect(client.ReadStream(ctx, name, options, count))
}

func amounts(events []*kurrentdb.ResolvedEvent) []int {
	var all []int
	for _, resolved := range events {
		var data struct{ Amount int }
		must(json.Unmarshal(resolved.Event.Data, &data))
		all = append(all, data.Amount)
	}
	return all
}

func ids(events []*kurrentdb.ResolvedEvent) []uuid.UUID {
	var all []uuid.UUID
	for _, resolved := range events {
		all = append(all, resolved.OriginalEvent().EventID)
	}
	return all
}

func revisions(name string) []uint64 {
	events, err := readStream(name, kurrentdb.ReadStreamOptions{}, 10_000)
	must(err)
	var all []uint64
	for _, resolved := range events {
		all = append(all, resolved.Event.EventNumber)
	}
	return all
}

func opened() {
	account := stream("account")
	result, err := appendTo(account, kurrentdb.NoStream{}, deposited(100), event("Withdrawn", 30))
	must(err)
	equal(result.NextExpectedVersion, uint64(1))
	forwards, err := readStream(account, kurrentdb.ReadStreamOptions{}, 100)
	must(err)
	balance := 0
	for i, amount := range amounts(forwards) {
		if strings.HasPrefix(forwards[i].Event.EventType, "Deposited") {
			balance += amount
		} else {
			balance -= amount
		}
	}
	equal(balance, 70)
	newest := kurrentdb.ReadStreamOptions{Direction: kurrentdb.Backwards, From: kurrentdb.End{}}
	last, err := readStream(account, newest, 1)
	must(err)
	equal(amounts(last), []int{30})
	second, err := readStream(account, kurrentdb.ReadStreamOptions{From: kurrentdb.Revision(1)}, 100)
	must(err)
	equal(amounts(second), []int{30})
	first := kurrentdb.ReadStreamOptions{Direction: kurrentdb.Backwards, From: kurrentdb.Revision(0)}
	oldest, err := readStream(account, first, 100)
	must(err)
	equal(amounts(oldest), []int{100})
}

func conflict() {
	for _, state := range []kurrentdb.StreamState{kurrentdb.NoStream{}, kurrentdb.Revision(0), kurrentdb.Revision(9)} {
		_, err := appendTo(stream("account"), state, deposited(1))
		failsWith(kurrentdb.ErrorCodeWrongExpectedVersion, err)
	}
	_, err := appendTo(stream("nobody"), kurrentdb.StreamExists{}, deposited(1))
	failsWith(kurrentdb.ErrorCodeWrongExpectedVersion, err)
}

var once = deposited(5)
var firstAnswer *kurrentdb.WriteResult

func repeated() {
	name := stream("repeated")
	var err error
	firstAnswer, err = appendTo(name, kurrentdb.NoStream{}, once)
	must(err)
	for _, state := range []kurrentdb.StreamState{kurrentdb.NoStream{}, kurrentdb.Any{}, kurrentdb.StreamExists{}} {
		again, err := appendTo(name, state, once)
		must(err)
		equal(again, firstAnswer)
	}
	next := deposited(6)
	second, err := appendTo(name, kurrentdb.Revision(0), next)
	must(err)
	again, err := appendTo(name, kurrentdb.Revision(0), next)
	must(err)
	equal(again, second)
	equal(revisions(name), []uint64{0, 1})
}

func kept() {
	name := stream("bytes")
	bytes := kurrentdb.EventData{EventID: uuid.New(), EventType: "Bytes", Data: []byte{0, 1, 255}, Metadata: []byte{9}}
	json := deposited(1)
	json.Metadata = []byte(`{"by":"ann"}`)
	_, err := appendTo(name, kurrentdb.Any{}, bytes, json)
	must(err)
	stored, err := readStream(name, kurrentdb.ReadStreamOptions{}, 10)
	must(err)
	for i, wanted := range []kurrentdb.EventData{bytes, json} {
		equal(stored[i].Event.EventID, wanted.EventID)
		equal(stored[i].Event.Data, wanted.Data)
		equal(stored[i].Event.UserMetadata, wanted.Metadata)
	}
	equal(stored[0].Event.ContentType, "application/octet-stream")
	equal(stored[1].Event.ContentType, "application/json")
}

func missing() {
	_, err := readStream(stream("missing"), kurrentdb.ReadStreamOptions{}, 10)
	failsWith(kurrentdb.ErrorCodeResourceNotFound, err)
}

func readAll(options kurrentdb.ReadAllOptions, count uint64) []*kurrentdb.ResolvedEvent {
	events, err := collect(client.ReadAll(ctx, options, count))
	must(err)
	return events
}

func everything() {
	oldest := readAll(kurrentdb.ReadAllOptions{}, 1)
	equal(strings.HasPrefix(oldest[0].Event.EventType, "$"), true)
	account, err := readStream(stream("account"), kurrentdb.ReadStreamOptions{}, 10)
	must(err)
	// A position is part of what is read forwards from it, and not of what is read backwards.
	forwards := readAll(kurrentdb.ReadAllOptions{From: account[0].Event.Position}, 2)
	equal(ids(forwards), ids(account))
	backwards := readAll(kurrentdb.ReadAllOptions{Direction: kurrentdb.Backwards, From: account[1].Event.Position}, 1)
	equal(ids(backwards), ids(account[:1]))
	newest := readAll(kurrentdb.ReadAllOptions{Direction: kurrentdb.Backwards, From: kurrentdb.End{}}, 1)
	equal(ids(readAll(kurrentdb.ReadAllOptions{From: newest[0].Event.Position}, 10)), ids(newest))
}

// toAll subscribes to the events of a filter, behind a position.
func toAll(from kurrentdb.AllPosition, filter kurrentdb.SubscriptionFilter) (*kurrentdb.Subscription, error) {
	options := kurrentdb.SubscribeToAllOptions{From: from, Filter: &filter, MaxSearchWindow: 1, CheckpointInterval: 1}
	return client.SubscribeToAll(ctx, options)
}

func toStream(name string, from kurrentdb.StreamPosition) (*kurrentdb.Subscription, error) {
	return client.SubscribeToStream(ctx, name, kurrentdb.SubscribeToStreamOptions{From: from})
}

func typeFilter(prefixes ...string) kurrentdb.SubscriptionFilter {
	return kurrentdb.SubscriptionFilter{Type: kurrentdb.EventFilterType, Prefixes: prefixes}
}

func streamFilter(prefixes ...string) kurrentdb.SubscriptionFilter {
	return kurrentdb.SubscriptionFilter{Type: kurrentdb.StreamFilterType, Prefixes: prefixes}
}

// This client reads everything without a filter, and filters subscriptions.
func filtered() {
	account := stream("account")
	byType := kurrentdb.SubscriptionFilter{Type: kurrentdb.EventFilterType, Regex: "^With.*_" + run + "$"}
	byStream := kurrentdb.SubscriptionFilter{Type: kurrentdb.StreamFilterType, Regex: "^" + account + "$"}
	for _, filter := range []kurrentdb.SubscriptionFilter{typeFilter("Nothing_", "Withdrawn_"+run), byType} {
		equal(amounts(firstOf(1, nil)(toAll(kurrentdb.Start{}, filter))), []int{30})
	}
	for _, filter := range []kurrentdb.SubscriptionFilter{streamFilter(account), byStream} {
		equal(amounts(firstOf(2, nil)(toAll(kurrentdb.Start{}, filter))), []int{100, 30})
	}
}

// firstOf gives the first events of a subscription, and calls caughtUp when it has.
func firstOf(count int, caughtUp func(*kurrentdb.CaughtUp)) func(*kurrentdb.Subscription, error) []*kurrentdb.ResolvedEvent {
	return func(subscription *kurrentdb.Subscription, err error) []*kurrentdb.ResolvedEvent {
		must(err)
		defer subscription.Close()
		var events []*kurrentdb.ResolvedEvent
		for len(events) < count {
			next := subscription.Recv()
			switch {
			case next.SubscriptionDropped != nil:
				panic(next.SubscriptionDropped.Error)
			case next.EventAppeared != nil:
				events = append(events, next.EventAppeared)
			case next.CaughtUp != nil && caughtUp != nil:
				caughtUp(next.CaughtUp)
				caughtUp = nil
			}
		}
		return events
	}
}

func followed() {
	name := stream("followed")
	_, err := appendTo(name, kurrentdb.Any{}, deposited(1), deposited(2))
	must(err)
	events := firstOf(4, func(told *kurrentdb.CaughtUp) {
		equal(*told.StreamRevision, uint64(1))
		_, err := appendTo(name, kurrentdb.Any{}, deposited(3), deposited(4))
		must(err)
	})(toStream(name, kurrentdb.Start{}))
	equal(amounts(events), []int{1, 2, 3, 4})
	equal(amounts(firstOf(2, nil)(toStream(name, kurrentdb.Revision(1)))), []int{3, 4})
	options := kurrentdb.SubscribeToAllOptions{From: events[1].Event.Position}
	equal(amounts(firstOf(2, nil)(client.SubscribeToAll(ctx, options))), []int{3, 4})
}

func checkpoints() {
	name := stream("checked")
	_, err := appendTo(name, kurrentdb.Any{}, deposited(1), deposited(2), deposited(3))
	must(err)
	stored, err := readStream(name, kurrentdb.ReadStreamOptions{}, 1)
	must(err)
	subscription, err := toAll(kurrentdb.Start{}, typeFilter("Never_"+run))
	must(err)
	defer subscription.Close()
	var checkpoint *kurrentdb.Position
	// Not before this stream's first event, so that what comes behind the checkpoint is known.
	for checkpoint == nil || checkpoint.Commit < stored[0].Event.Position.Commit {
		next := subscription.Recv()
		equal(next.EventAppeared == nil && next.SubscriptionDropped == nil, true)
		checkpoint = next.CheckPointReached
	}
	_, err = appendTo(name, kurrentdb.Any{}, deposited(4))
	must(err)
	expected, err := readStream(name, kurrentdb.ReadStreamOptions{}, 10)
	must(err)
	expected = slices.DeleteFunc(expected, func(resolved *kurrentdb.ResolvedEvent) bool {
		return resolved.Event.Position.Commit <= checkpoint.Commit
	})
	behind := firstOf(len(expected), nil)(toAll(*checkpoint, streamFilter(name)))
	equal(ids(behind), ids(expected))
}

func setMetadata(name string, state kurrentdb.StreamState, metadata kurrentdb.StreamMetadata) error {
	_, err := client.SetStreamMetadata(ctx, name, kurrentdb.AppendToStreamOptions{StreamState: state}, metadata)
	return err
}

func getMetadata(name string) kurrentdb.StreamMetadata {
	stored, err := client.GetStreamMetadata(ctx, name, kurrentdb.ReadStreamOptions{})
	must(err)
	return *stored
}

func bounded() {
	name := stream("bounded")
	_, err := appendTo(name, kurrentdb.Any{}, deposited(1), deposited(2), deposited(3), deposited(4))
	must(err)
	metadata := kurrentdb.StreamMetadata{}
	metadata.SetMaxCount(2)
	metadata.AddCustomProperty("owner", "ann")
	metadata.AddCustomProperty("limits", map[string]any{"daily": []any{1.0, 2.0}})
	must(setMetadata(name, kurrentdb.NoStream{}, metadata))
	equal(revisions(name), []uint64{2, 3})
	equal(getMetadata(name), metadata)
	truncated := kurrentdb.StreamMetadata{}
	truncated.SetTruncateBefore(3)
	must(setMetadata(name, kurrentdb.Revision(0), truncated))
	equal(revisions(name), []uint64{3})
	failsWith(kurrentdb.ErrorCodeWrongExpectedVersion, setMetadata(name, kurrentdb.Revision(0), metadata))
	equal(getMetadata(name), truncated)
}

func governed() {
	name := stream("governed")
	_, err := appendTo(name, kurrentdb.Any{}, deposited(1))
	must(err)
	// One role of each kind: this client does not read back the lists that it writes for several.
	acl := kurrentdb.Acl{}
	acl.AddReadRoles("ann")
	acl.AddWriteRoles("bob")
	acl.AddDeleteRoles("$admins")
	acl.AddMetaReadRoles("$all")
	acl.AddMetaWriteRoles("ann")
	metadata := kurrentdb.StreamMetadata{}
	metadata.SetMaxAge(time.Hour)
	metadata.SetCacheControl(10 * time.Second)
	metadata.SetAcl(acl)
	must(setMetadata(name, kurrentdb.Any{}, metadata))
	equal(getMetadata(name), metadata)
	// Nothing is an hour old yet.
	equal(revisions(name), []uint64{0})
}

func linked() {
	name, target := stream("linked"), stream("account")
	link := func(place string) kurrentdb.EventData {
		return kurrentdb.EventData{EventID: uuid.New(), EventType: "$>", Data: []byte(place)}
	}
	_, err := appendTo(name, kurrentdb.Any{}, link("0@"+target), link("7@"+stream("missing")))
	must(err)
	unresolved, err := readStream(name, kurrentdb.ReadStreamOptions{}, 10)
	must(err)
	for _, itself := range unresolved {
		equal(itself.Event.EventType, "$>")
		equal(itself.Link == nil, true)
	}
	read, err := readStream(name, kurrentdb.ReadStreamOptions{ResolveLinkTos: true}, 10)
	must(err)
	options := kurrentdb.SubscribeToStreamOptions{From: kurrentdb.Start{}, ResolveLinkTos: true}
	subscribed := firstOf(2, nil)(client.SubscribeToStream(ctx, name, options))
	for _, events := range [][]*kurrentdb.ResolvedEvent{read, subscribed} {
		equal(len(events), 2)
		equal(events[0].Event.StreamID, target)
		equal(events[1].Event == nil, true)
		for revision, resolved := range events {
			equal(resolved.Link.StreamID, name)
			equal(resolved.Link.EventNumber, uint64(revision))
		}
	}
}

func stillThere() {
	account, err := readStream(stream("account"), kurrentdb.ReadStreamOptions{}, 10)
	must(err)
	equal(amounts(account), []int{100, 30})
	for _, state := range []kurrentdb.StreamState{kurrentdb.Any{}, kurrentdb.NoStream{}} {
		again, err := appendTo(stream("repeated"), state, once)
		must(err)
		equal(again, firstAnswer)
	}
	equal(revisions(stream("bounded")), []uint64{3})
	governed := getMetadata(stream("governed"))
	equal(*governed.MaxAge(), time.Hour)
}

func deleted() {
	name := stream("deleted")
	_, err := appendTo(name, kurrentdb.Any{}, deposited(1), deposited(2))
	must(err)
	_, err = client.DeleteStream(ctx, name, kurrentdb.DeleteStreamOptions{StreamState: kurrentdb.Revision(0)})
	equal(err != nil, true)
	_, err = client.DeleteStream(ctx, name, kurrentdb.DeleteStreamOptions{StreamState: kurrentdb.Revision(1)})
	must(err)
	_, err = readStream(name, kurrentdb.ReadStreamOptions{}, 10)
	failsWith(kurrentdb.ErrorCodeResourceNotFound, err)
	_, err = appendTo(name, kurrentdb.NoStream{}, deposited(3))
	must(err)
	equal(revisions(name), []uint64{2})
}

func tombstoned() {
	name := stream("tombstoned")
	_, err := appendTo(name, kurrentdb.Any{}, deposited(1))
	must(err)
	subscription, err := toStream(name, kurrentdb.Start{})
	must(err)
	defer subscription.Close()
	for subscription.Recv().EventAppeared == nil {
	}
	_, err = client.TombstoneStream(ctx, name, kurrentdb.TombstoneStreamOptions{StreamState: kurrentdb.Revision(0)})
	must(err)
	var ended *kurrentdb.SubscriptionDropped
	for ended == nil {
		ended = subscription.Recv().SubscriptionDropped
	}
	failsWith(kurrentdb.ErrorCodeStreamDeleted, ended.Error)
	_, err = readStream(name, kurrentdb.ReadStreamOptions{}, 10)
	failsWith(kurrentdb.ErrorCodeStreamDeleted, err)
	_, err = appendTo(name, kurrentdb.Any{}, deposited(2))
	failsWith(kurrentdb.ErrorCodeStreamDeleted, err)
}

func several() {
	from, to := stream("from"), stream("to")
	none := kurrentdb.NoStream{}
	transfer := func(events ...kurrentdb.EventData) (*kurrentdb.MultiStreamAppendResponse, error) {
		return client.MultiStreamAppend(ctx, slices.Values([]kurrentdb.AppendStreamRequest{
			{StreamName: from, Events: slices.Values(events[:1]), ExpectedStreamState: none},
			{StreamName: to, Events: slices.Values(events[1:]), ExpectedStreamState: none},
		}))
	}
	events := []kurrentdb.EventData{event("Withdrawn", 5), deposited(5)}
	first, err := transfer(events...)
	must(err)
	again, err := transfer(events...)
	must(err)
	equal(again, first)
	_, err = transfer(event("Withdrawn", 5), deposited(5))
	failsWith(kurrentdb.ErrorCodeStreamRevisionConflict, err)
	equal(revisions(to), []uint64{0})
}

func records() {
	from, to, limit := stream("from"), stream("to"), stream("limit")
	records := func() []kurrentdb.AppendRecord {
		return []kurrentdb.AppendRecord{
			{Stream: from, Record: event("Withdrawn", 1)},
			{Stream: to, Record: deposited(1)},
			{Stream: from, Record: event("Withdrawn", 2)},
		}
	}
	moved, check := records(), kurrentdb.StreamStateCheck{Stream: limit, ExpectedState: kurrentdb.NoStream{}}
	first, err := client.AppendRecords(ctx, moved, check)
	must(err)
	again, err := client.AppendRecords(ctx, moved, check)
	must(err)
	equal(again, first)
	equal(revisions(from), []uint64{0, 1, 2})
	_, err = client.AppendRecords(ctx, records(),
		kurrentdb.StreamStateCheck{Stream: limit, ExpectedState: kurrentdb.StreamExists{}},
		kurrentdb.StreamStateCheck{Stream: to, ExpectedState: kurrentdb.Revision(0)},
	)
	failsWith(kurrentdb.ErrorCodeAppendConsistencyViolation, err)
	var violated *kurrentdb.AppendConsistencyViolationError
	equal(errors.As(err, &violated), true)
	equal(len(violated.Violations), 2)
	equal(violated.Violations[1].ActualState, kurrentdb.Revision(1))
	equal(revisions(to), []uint64{0, 1})
}

func checks() {
	log, soft, hard := stream("log"), stream("soft"), stream("hard")
	for _, name := range []string{soft, hard} {
		_, err := appendTo(name, kurrentdb.Any{}, deposited(1), deposited(2))
		must(err)
	}
	_, err := client.DeleteStream(ctx, soft, kurrentdb.DeleteStreamOptions{StreamState: kurrentdb.Any{}})
	must(err)
	_, err = client.TombstoneStream(ctx, hard, kurrentdb.TombstoneStreamOptions{StreamState: kurrentdb.Any{}})
	must(err)
	to := func(name string, checks ...kurrentdb.ConsistencyCheck) error {
		records := []kurrentdb.AppendRecord{{Stream: name, Record: deposited(1)}}
		_, err := client.AppendRecords(ctx, records, checks...)
		return err
	}
	check := func(name string, state kurrentdb.StreamState) kurrentdb.ConsistencyCheck {
		return kurrentdb.StreamStateCheck{Stream: name, ExpectedState: state}
	}
	must(to(log, check(soft, kurrentdb.NoStream{}), check(hard, kurrentdb.NoStream{})))
	for _, failing := range []struct {
		err   error
		count int
	}{
		{to(log, check(soft, kurrentdb.StreamExists{})), 1},
		{to(log, check(soft, kurrentdb.Revision(7)), check(hard, kurrentdb.Revision(7))), 2},
		{to(hard, check(hard, kurrentdb.Any{})), 1},
		{to(hard), 1},
	} {
		failsWith(kurrentdb.ErrorCodeAppendConsistencyViolation, failing.err)
		var violated *kurrentdb.AppendConsistencyViolationError
		equal(errors.As(failing.err, &violated), true)
		equal(len(violated.Violations), failing.count)
	}
	equal(revisions(log), []uint64{0})
}

func copied() {
	one, other, event := stream("one"), stream("other"), deposited(7)
	_, err := appendTo(one, kurrentdb.NoStream{}, event)
	must(err)
	first, err := appendTo(other, kurrentdb.NoStream{}, event)
	must(err)
	again, err := appendTo(other, kurrentdb.NoStream{}, event)
	must(err)
	equal(again.CommitPosition, first.CommitPosition)
	for _, name := range []string{one, other} {
		events, err := readStream(name, kurrentdb.ReadStreamOptions{}, 10)
		must(err)
		equal(ids(events), []uuid.UUID{event.EventID})
	}
}

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
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
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
	// Unless it is told to be patient, this client is closed for good when a server is away for a second.
	settings.MaxDiscoverAttempts = 100
	client, err = kurrentdb.NewClient(settings)
	must(err)
	defer client.Close()

	step("an account is opened and read in both directions", opened)
	step("a conflict is an error of its own", conflict)
	step("an append that is repeated is stored once", repeated)
	step("a missing stream is an error of its own", missing)
	step("filters choose by type and by stream", filtered)
	step("a subscription gives what is stored, says that it has caught up, and goes on live", followed)
	step("a subscription with a filter tells checkpoints", checkpoints)
	step("metadata bounds a stream", bounded)
	step("a deleted stream comes back with its next event", deleted)
	step("a tombstone is for ever", tombstoned)
	step("a link leads to its event", linked)
	step("several streams are appended to at once", several)
	step("a server that is killed loses nothing it acknowledged, and the client comes back", survives)
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
}

func conflict() {
	for _, state := range []kurrentdb.StreamState{kurrentdb.NoStream{}, kurrentdb.Revision(0), kurrentdb.Revision(9)} {
		_, err := appendTo(stream("account"), state, deposited(1))
		failsWith(kurrentdb.ErrorCodeWrongExpectedVersion, err)
	}
	_, err := appendTo(stream("nobody"), kurrentdb.StreamExists{}, deposited(1))
	failsWith(kurrentdb.ErrorCodeWrongExpectedVersion, err)
}

func repeated() {
	once := deposited(5)
	first, err := appendTo(stream("repeated"), kurrentdb.NoStream{}, once)
	must(err)
	again, err := appendTo(stream("repeated"), kurrentdb.NoStream{}, once)
	must(err)
	equal(again.CommitPosition, first.CommitPosition)
	equal(revisions(stream("repeated")), []uint64{0})
}

func missing() {
	_, err := readStream(stream("missing"), kurrentdb.ReadStreamOptions{}, 10)
	failsWith(kurrentdb.ErrorCodeResourceNotFound, err)
}

func filtered() {
	everything, err := collect(client.ReadAll(ctx, kurrentdb.ReadAllOptions{}, 1_000_000))
	must(err)
	if !strings.HasPrefix(everything[0].Event.EventType, "$") {
		panic("the log does not begin with an event of the system's")
	}
	own := kurrentdb.SubscriptionFilter{Type: kurrentdb.StreamFilterType, Regex: "^" + stream("account") + "$"}
	events := firstOf(2, func() (*kurrentdb.Subscription, error) {
		return client.SubscribeToAll(ctx, kurrentdb.SubscribeToAllOptions{From: kurrentdb.Start{}, Filter: &own})
	}, nil)
	equal(amounts(events), []int{100, 30})
	withdrawn := kurrentdb.SubscriptionFilter{Type: kurrentdb.EventFilterType, Prefixes: []string{"Withdrawn_" + run}}
	events = firstOf(1, func() (*kurrentdb.Subscription, error) {
		return client.SubscribeToAll(ctx, kurrentdb.SubscribeToAllOptions{From: kurrentdb.Start{}, Filter: &withdrawn})
	}, nil)
	equal(amounts(events), []int{30})
}

// firstOf gives the first events of a subscription, and calls caughtUp when it has.
func firstOf(count int, subscribe func() (*kurrentdb.Subscription, error), caughtUp func()) []*kurrentdb.ResolvedEvent {
	subscription, err := subscribe()
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
			caughtUp()
			caughtUp = nil
		}
	}
	return events
}

func followed() {
	name := stream("followed")
	_, err := appendTo(name, kurrentdb.Any{}, deposited(1), deposited(2))
	must(err)
	events := firstOf(4, func() (*kurrentdb.Subscription, error) {
		return client.SubscribeToStream(ctx, name, kurrentdb.SubscribeToStreamOptions{From: kurrentdb.Start{}})
	}, func() {
		_, err := appendTo(name, kurrentdb.Any{}, deposited(3), deposited(4))
		must(err)
	})
	equal(amounts(events), []int{1, 2, 3, 4})
	behind := firstOf(2, func() (*kurrentdb.Subscription, error) {
		return client.SubscribeToStream(ctx, name, kurrentdb.SubscribeToStreamOptions{From: kurrentdb.Revision(1)})
	}, nil)
	equal(amounts(behind), []int{3, 4})
	position := events[1].Event.Position
	behind = firstOf(2, func() (*kurrentdb.Subscription, error) {
		return client.SubscribeToAll(ctx, kurrentdb.SubscribeToAllOptions{From: position})
	}, nil)
	equal(amounts(behind), []int{3, 4})
}

func checkpoints() {
	never := kurrentdb.SubscriptionFilter{Type: kurrentdb.EventFilterType, Prefixes: []string{"Never_" + run}}
	subscription, err := client.SubscribeToAll(ctx, kurrentdb.SubscribeToAllOptions{
		From: kurrentdb.Start{}, Filter: &never, MaxSearchWindow: 1, CheckpointInterval: 1,
	})
	must(err)
	defer subscription.Close()
	for subscription.Recv().CheckPointReached == nil {
	}
}

func bounded() {
	name := stream("bounded")
	_, err := appendTo(name, kurrentdb.Any{}, deposited(1), deposited(2), deposited(3), deposited(4))
	must(err)
	metadata := kurrentdb.StreamMetadata{}
	metadata.SetMaxCount(2)
	metadata.AddCustomProperty("owner", "ann")
	_, err = client.SetStreamMetadata(ctx, name, kurrentdb.AppendToStreamOptions{StreamState: kurrentdb.NoStream{}}, metadata)
	must(err)
	equal(revisions(name), []uint64{2, 3})
	stored, err := client.GetStreamMetadata(ctx, name, kurrentdb.ReadStreamOptions{})
	must(err)
	equal(*stored.MaxCount(), uint64(2))
	equal(stored.CustomProperty("owner"), "ann")
}

func deleted() {
	name := stream("deleted")
	_, err := appendTo(name, kurrentdb.Any{}, deposited(1), deposited(2))
	must(err)
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
	_, err = client.TombstoneStream(ctx, name, kurrentdb.TombstoneStreamOptions{StreamState: kurrentdb.Revision(0)})
	must(err)
	_, err = readStream(name, kurrentdb.ReadStreamOptions{}, 10)
	failsWith(kurrentdb.ErrorCodeStreamDeleted, err)
	_, err = appendTo(name, kurrentdb.Any{}, deposited(2))
	failsWith(kurrentdb.ErrorCodeStreamDeleted, err)
}

func linked() {
	name, target := stream("linked"), stream("account")
	link := kurrentdb.EventData{EventID: uuid.New(), EventType: "$>", Data: []byte("0@" + target)}
	_, err := appendTo(name, kurrentdb.Any{}, link)
	must(err)
	resolved, err := readStream(name, kurrentdb.ReadStreamOptions{ResolveLinkTos: true}, 10)
	must(err)
	equal(resolved[0].Event.StreamID, target)
	equal(resolved[0].Link.StreamID, name)
}

func several() {
	from, to := stream("from"), stream("to")
	transfer := func() error {
		requests := slices.Values([]kurrentdb.AppendStreamRequest{
			{StreamName: from, Events: slices.Values([]kurrentdb.EventData{event("Withdrawn", 5)}), ExpectedStreamState: kurrentdb.NoStream{}},
			{StreamName: to, Events: slices.Values([]kurrentdb.EventData{deposited(5)}), ExpectedStreamState: kurrentdb.NoStream{}},
		})
		_, err := client.MultiStreamAppend(ctx, requests)
		return err
	}
	must(transfer())
	failsWith(kurrentdb.ErrorCodeStreamRevisionConflict, transfer())
	equal(revisions(to), []uint64{0})
}

func survives() {
	name := stream("survivor")
	var guard sync.Mutex
	var acknowledged []uuid.UUID
	stopped := false
	count := func() int {
		guard.Lock()
		defer guard.Unlock()
		return len(acknowledged)
	}
	var writer sync.WaitGroup
	writer.Add(1)
	go func() {
		defer writer.Done()
		for amount := 0; ; amount++ {
			next := deposited(amount)
			for {
				if _, err := appendTo(name, kurrentdb.Any{}, next); err == nil {
					break
				}
				// Whether it was stored is not known; the same event again is stored once.
				time.Sleep(50 * time.Millisecond)
			}
			guard.Lock()
			acknowledged = append(acknowledged, next.EventID)
			ends := stopped
			guard.Unlock()
			if ends {
				return
			}
		}
	}()
	for count() < 50 {
		time.Sleep(5 * time.Millisecond)
	}
	before := count()
	if restart := os.Getenv("LEFTFOLD_RESTART"); restart != "" {
		must(exec.Command("sh", "-c", restart).Run())
	}
	for count() < before+50 {
		time.Sleep(5 * time.Millisecond)
	}
	guard.Lock()
	stopped = true
	guard.Unlock()
	writer.Wait()
	events, err := readStream(name, kurrentdb.ReadStreamOptions{}, 1_000_000)
	must(err)
	var stored []uuid.UUID
	for _, resolved := range events {
		stored = append(stored, resolved.Event.EventID)
	}
	equal(stored, acknowledged)
}

// What a program in Go meets at a server with TLS and users: a right, a wrong and an insufficient user, and an API key.
// Each step says what it expects; the first surprise ends the flow.
//
// LEFTFOLD_ADDRESS, LEFTFOLD_CA_FILE, LEFTFOLD_KEY and LEFTFOLD_NARROW_KEY describe the server; see server.sh.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/kurrent-io/KurrentDB-Client-Go/kurrentdb"
)

var ctx = context.Background()

func connect(login, password string) *kurrentdb.Client {
	url := fmt.Sprintf("kurrentdb://%s:%s@%s?tls=true&tlsCaFile=%s",
		login, password, os.Getenv("LEFTFOLD_ADDRESS"), os.Getenv("LEFTFOLD_CA_FILE"))
	settings, err := kurrentdb.ParseConnectionString(url)
	must(err)
	settings.Logger = func(kurrentdb.LogLevel, string, ...interface{}) {}
	client, err := kurrentdb.NewClient(settings)
	must(err)
	return client
}

func user(login string) *kurrentdb.Client {
	return connect(login, "password-of-"+login)
}

func put(client *kurrentdb.Client, stream, data string) error {
	event := kurrentdb.EventData{EventType: "Opened", ContentType: kurrentdb.ContentTypeBinary, Data: []byte(data)}
	_, err := client.AppendToStream(ctx, stream, kurrentdb.AppendToStreamOptions{}, event)
	return err
}

// gather reads to the end, and returns what each event has of interest.
func gather(events *kurrentdb.ReadStream, err error, of func(*kurrentdb.RecordedEvent) string) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer events.Close()
	var found []string
	for {
		resolved, err := events.Recv()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		found = append(found, of(resolved.Event))
	}
}

func data(client *kurrentdb.Client, stream string) ([]string, error) {
	events, err := client.ReadStream(ctx, stream, kurrentdb.ReadStreamOptions{}, 100)
	return gather(events, err, func(event *kurrentdb.RecordedEvent) string { return string(event.Data) })
}

func streams(client *kurrentdb.Client) []string {
	events, err := client.ReadAll(ctx, kurrentdb.ReadAllOptions{}, 1000)
	found, err := gather(events, err, func(event *kurrentdb.RecordedEvent) string { return event.StreamID })
	must(err)
	return found
}

func refused(err error, code kurrentdb.ErrorCode) {
	told, ok := kurrentdb.FromError(err)
	if ok || told.Code() != code {
		panic(fmt.Sprintf("expected code %v, got %v", code, err))
	}
}

func main() {
	ann, bob := user("ann"), user("bob")
	step("a user with the right appends and reads", func() {
		must(put(ann, "secret-1", "7"))
		must(put(ann, "account-1", "1"))
		found, err := data(ann, "secret-1")
		must(err)
		expect(slices.Equal(found, []string{"7"}), found)
	})
	step("a user without the right is denied, and reads of everything leave out what is hidden", func() {
		_, err := data(bob, "secret-1")
		refused(err, kurrentdb.ErrorCodeAccessDenied)
		refused(put(bob, "secret-1", "8"), kurrentdb.ErrorCodeAccessDenied)
		found := streams(bob)
		expect(slices.Contains(found, "account-1") && !slices.Contains(found, "secret-1"), found)
	})
	step("a wrong password is refused", func() {
		_, err := data(connect("ann", "wrong-password"), "account-1")
		refused(err, kurrentdb.ErrorCodeUnauthenticated)
	})
	step("an API key is the password of any login, within its rights", func() {
		shop, tenant := connect("shop", os.Getenv("LEFTFOLD_KEY")), connect("tenant", os.Getenv("LEFTFOLD_NARROW_KEY"))
		must(put(shop, "account-2", "2"))
		refused(put(tenant, "account-2", "3"), kurrentdb.ErrorCodeAccessDenied)
		found := streams(tenant)
		expect(!slices.ContainsFunc(found, func(name string) bool { return strings.HasPrefix(name, "account-") }), found)
	})
	fmt.Println("the flow of the Go client with TLS and users is through")
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

func expect(holds bool, found any) {
	if !holds {
		panic(fmt.Sprint("found ", found))
	}
}

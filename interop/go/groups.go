// The steps with groups of competing consumers.
package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/kurrent-io/KurrentDB-Client-Go/kurrentdb"
)

func groupOptions() kurrentdb.PersistentStreamSubscriptionOptions {
	settings := kurrentdb.SubscriptionSettingsDefault()
	settings.MaxRetryCount = 2
	settings.CheckpointLowerBound = 1
	settings.CheckpointAfter = 50
	return kurrentdb.PersistentStreamSubscriptionOptions{Settings: &settings, StartFrom: kurrentdb.Start{}}
}

func createGroup(name string) {
	must(client.CreatePersistentSubscription(ctx, name, "g", groupOptions()))
}

func put(name string, first, count int) error {
	events := make([]kurrentdb.EventData, count)
	for number := range events {
		events[number] = deposited(first + number)
	}
	_, err := appendTo(name, kurrentdb.Any{}, events...)
	return err
}

func join(name string) (*kurrentdb.PersistentSubscription, error) {
	return client.SubscribeToPersistentSubscription(ctx, name, "g", kurrentdb.SubscribeToPersistentSubscriptionOptions{})
}

func numberOf(resolved *kurrentdb.ResolvedEvent) int {
	var data struct{ Amount int }
	must(json.Unmarshal(resolved.OriginalEvent().Data, &data))
	return data.Amount
}

func parkedIn(name string) int64 {
	info, err := client.GetPersistentSubscriptionInfo(ctx, name, "g", kurrentdb.GetPersistentSubscriptionOptions{})
	must(err)
	return info.Stats.ParkedMessagesCount
}

func groupsManaged() {
	name := stream("managed")
	createGroup(name)
	failsWith(kurrentdb.ErrorCodeResourceAlreadyExists, client.CreatePersistentSubscription(ctx, name, "g", groupOptions()))
	changed := groupOptions()
	changed.Settings.MaxRetryCount = 7
	must(client.UpdatePersistentSubscription(ctx, name, "g", changed))
	info, err := client.GetPersistentSubscriptionInfo(ctx, name, "g", kurrentdb.GetPersistentSubscriptionOptions{})
	must(err)
	equal(info.Settings.MaxRetryCount, int32(7))
	equal(info.EventSource, name)
	listed, err := client.ListPersistentSubscriptionsForStream(ctx, name, kurrentdb.ListPersistentSubscriptionsOptions{})
	must(err)
	equal(len(listed), 1)
	deletion := kurrentdb.DeletePersistentSubscriptionOptions{}
	must(client.DeletePersistentSubscription(ctx, name, "g", deletion))
	failsWith(kurrentdb.ErrorCodeResourceNotFound, client.DeletePersistentSubscription(ctx, name, "g", deletion))
	_, err = join(name)
	failsWith(kurrentdb.ErrorCodeResourceNotFound, err)
}

func groupsSettled() {
	name := stream("settled")
	createGroup(name)
	must(put(name, 0, 4))
	consumer, err := join(name)
	must(err)
	defer consumer.Close()
	deliveries := map[int]int{}
	for range 6 {
		appeared := consumer.Recv().EventAppeared
		number := numberOf(appeared.Event)
		equal(appeared.RetryCount, deliveries[number])
		deliveries[number]++
		switch number {
		case 1:
			must(consumer.Nack("one", kurrentdb.NackActionRetry, appeared.Event))
		case 2:
			must(consumer.Nack("two", kurrentdb.NackActionPark, appeared.Event))
		case 3:
			must(consumer.Nack("", kurrentdb.NackActionSkip, appeared.Event))
		default:
			must(consumer.Ack(appeared.Event))
		}
	}
	equal(deliveries, map[int]int{0: 1, 1: 3, 2: 1, 3: 1})
	until(func() bool { return parkedIn(name) == 2 })
	must(client.ReplayParkedMessages(ctx, name, "g", kurrentdb.ReplayParkedMessagesOptions{}))
	for number := 1; number <= 2; number++ {
		appeared := consumer.Recv().EventAppeared
		equal(numberOf(appeared.Event), number)
		must(consumer.Ack(appeared.Event))
	}
	until(func() bool { return parkedIn(name) == 0 })
}

func groupsKilled() {
	name := stream("group_survivor")
	createGroup(name)
	must(put(name, 0, 200))
	var lock sync.Mutex
	seen, joined, stopped := map[int]bool{}, 0, false
	count := func() int {
		lock.Lock()
		defer lock.Unlock()
		return len(seen)
	}
	for range 3 {
		// A consumer that joins again when its server is gone.
		go func() {
			for !stopped {
				consumer, err := join(name)
				if err != nil {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				lock.Lock()
				joined++
				lock.Unlock()
				for {
					appeared := consumer.Recv().EventAppeared
					if appeared == nil || consumer.Ack(appeared.Event) != nil {
						break
					}
					lock.Lock()
					seen[numberOf(appeared.Event)] = true
					lock.Unlock()
				}
				consumer.Close()
			}
		}()
	}
	until(func() bool { return count() > 20 })
	restart := os.Getenv("LEFTFOLD_RESTART")
	if restart != "" {
		must(exec.Command("sh", "-c", restart).Run())
	}
	until(func() bool { return put(name, 200, 20) == nil })
	until(func() bool { return count() == 220 })
	stopped = true
	equal(parkedIn(name), int64(0))
	if restart != "" && joined <= 3 {
		panic("the consumers were not interrupted")
	}
}

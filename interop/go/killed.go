// The step in which the server is killed while others append and subscribe.
package main

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/kurrent-io/KurrentDB-Client-Go/kurrentdb"
)

// list is what one goroutine adds to and others look at.
type list struct {
	guard sync.Mutex
	ids   []uuid.UUID
}

func (list *list) add(id uuid.UUID) {
	list.guard.Lock()
	defer list.guard.Unlock()
	list.ids = append(list.ids, id)
}

func (list *list) all() []uuid.UUID {
	list.guard.Lock()
	defer list.guard.Unlock()
	return slices.Clone(list.ids)
}

func (list *list) has(count int) bool { return len(list.all()) >= count }

func until(condition func() bool) {
	for !condition() {
		time.Sleep(5 * time.Millisecond)
	}
}

// keepAppending appends one event after the other, and the same one again until it is acknowledged.
func keepAppending(going context.Context, name string, acknowledged *list) (failures int) {
	for going.Err() == nil {
		next := deposited(1)
		for {
			if _, err := appendTo(name, kurrentdb.Any{}, next); err == nil {
				break
			}
			// Whether it was stored is not known; the same event again is stored once.
			failures++
			time.Sleep(50 * time.Millisecond)
		}
		acknowledged.add(next.EventID)
	}
	return failures
}

// follow is a subscription that comes back: this client drops one when its server is gone, and opens no new one, so the
// program does, after the last position it received. `note` is called with every message, so that `open` knows the position.
func follow(going context.Context, seen *list, open func() (*kurrentdb.Subscription, error), note func(*kurrentdb.SubscriptionEvent)) (opened int) {
	for going.Err() == nil {
		subscription, err := open()
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		opened++
		for next := subscription.Recv(); next.SubscriptionDropped == nil; next = subscription.Recv() {
			note(next)
			if next.EventAppeared != nil {
				seen.add(next.EventAppeared.OriginalEvent().EventID)
			}
		}
		subscription.Close()
	}
	return opened
}

func followAll(going context.Context, seen *list, filter kurrentdb.SubscriptionFilter) int {
	var behind kurrentdb.AllPosition = kurrentdb.Start{}
	return follow(going, seen, func() (*kurrentdb.Subscription, error) {
		options := kurrentdb.SubscribeToAllOptions{From: behind, Filter: &filter, MaxSearchWindow: 1, CheckpointInterval: 1}
		return client.SubscribeToAll(going, options)
	}, func(told *kurrentdb.SubscriptionEvent) {
		switch {
		case told.EventAppeared != nil:
			behind = told.EventAppeared.OriginalEvent().Position
		case told.CheckPointReached != nil:
			behind = *told.CheckPointReached
		}
	})
}

func followStream(going context.Context, seen *list, name string) int {
	var behind kurrentdb.StreamPosition = kurrentdb.Start{}
	return follow(going, seen, func() (*kurrentdb.Subscription, error) {
		return client.SubscribeToStream(going, name, kurrentdb.SubscribeToStreamOptions{From: behind})
	}, func(told *kurrentdb.SubscriptionEvent) {
		if told.EventAppeared != nil {
			behind = told.EventAppeared.OriginalStreamRevision()
		}
	})
}

func killed() {
	names := []string{stream("survivor_0"), stream("survivor_1"), stream("survivor_2"), stream("survivor_3")}
	everyone := streamFilter("go_survivor_")
	acknowledged := make([]list, len(names))
	failures := make([]int, len(names))
	var fromAll, fromStream list
	var openedAll, openedStream int
	appending, stopAppending := context.WithCancel(ctx)
	following, stopFollowing := context.WithCancel(ctx)
	var appends, follows sync.WaitGroup
	for number, name := range names {
		appends.Add(1)
		go func() {
			defer appends.Done()
			failures[number] = keepAppending(appending, name, &acknowledged[number])
		}()
	}
	follows.Add(2)
	go func() {
		defer follows.Done()
		openedAll = followAll(following, &fromAll, everyone)
	}()
	go func() {
		defer follows.Done()
		openedStream = followStream(following, &fromStream, names[0])
	}()

	counts := func() (counts []int) {
		for number := range acknowledged {
			counts = append(counts, len(acknowledged[number].all()))
		}
		return counts
	}
	until(func() bool { return slices.Min(counts()) >= 25 && fromAll.has(1) && fromStream.has(1) })
	restart := os.Getenv("LEFTFOLD_RESTART")
	if restart != "" {
		// All four are waiting for an answer.
		must(exec.Command("sh", "-c", restart).Run())
		newest := slices.Max(counts())
		until(func() bool { return slices.Min(counts()) >= newest+25 })
	}
	stopAppending()
	appends.Wait()

	everything := readAll(kurrentdb.ReadAllOptions{}, 1_000_000)
	stored := ids(slices.DeleteFunc(everything, func(resolved *kurrentdb.ResolvedEvent) bool {
		return !slices.Contains(names, resolved.Event.StreamID)
	}))
	until(func() bool { return fromAll.has(len(stored)) && fromStream.has(counts()[0]) })
	stopFollowing()
	follows.Wait()
	for number, name := range names {
		events, err := readStream(name, kurrentdb.ReadStreamOptions{}, 1_000_000)
		must(err)
		equal(ids(events), acknowledged[number].all())
	}
	equal(fromAll.all(), stored)
	equal(fromStream.all(), acknowledged[0].all())
	if restart != "" {
		slices.Sort(failures)
		// More than one append was interrupted, and both subscriptions.
		equal(failures[len(failures)-2] > 0, true)
		equal(openedAll > 1 && openedStream > 1, true)
	}
}

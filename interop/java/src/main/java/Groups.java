import io.kurrent.dbclient.*;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicInteger;

/** The steps with groups of competing consumers. */
class Groups {
  private static final KurrentDBPersistentSubscriptionsClient groups =
      KurrentDBPersistentSubscriptionsClient.from(Flow.client);

  private static CreatePersistentSubscriptionToStreamOptions options() {
    return CreatePersistentSubscriptionToStreamOptions.get()
        .fromStart()
        .maxRetryCount(2)
        .checkpointLowerBound(1)
        .checkpointAfterInMs(50);
  }

  private static void put(String name, int first, int count) throws Exception {
    EventData[] events = new EventData[count];
    for (int number = 0; number < count; number++) {
      events[number] = Flow.deposited(first + number);
    }
    Flow.append(name, StreamState.any(), events);
  }

  private static PersistentSubscriptionToStreamInfo info(String name) throws Exception {
    return groups.getInfoToStream(name, "g").get().get();
  }

  private static long parked(String name) throws Exception {
    return info(name).getStats().getParkedMessageCount();
  }

  private static void untilParked(String name, long count) throws Exception {
    while (parked(name) != count) {
      Thread.sleep(5);
    }
  }

  /** What is replayed is no longer parked before its consumer has it. */
  private static void untilSeen(List<String> seen, int count) throws Exception {
    while (true) {
      synchronized (seen) {
        if (seen.size() >= count) {
          return;
        }
      }
      Thread.sleep(5);
    }
  }

  static void managed() throws Exception {
    String name = Flow.stream("managed");
    groups.createToStream(name, "g", options()).get();
    try {
      groups.createToStream(name, "g", options()).get();
      throw new AssertionError("created twice");
    } catch (ExecutionException exists) {
      if (!String.valueOf(exists.getCause()).contains("ALREADY_EXISTS")) {
        throw exists;
      }
    }
    PersistentSubscriptionToStreamSettings settings = info(name).getSettings();
    Flow.equal(settings.getMaxRetryCount(), 2);
    groups.updateToStream(name, "g", UpdatePersistentSubscriptionToStreamOptions.from(settings).maxRetryCount(7)).get();
    Flow.equal(info(name).getSettings().getMaxRetryCount(), 7);
    Flow.equal(groups.listToStream(name).get().size(), 1);
    groups.deleteToStream(name, "g").get();
    Flow.equal(groups.getInfoToStream(name, "g").get().isPresent(), false);
  }

  static void settled() throws Exception {
    String name = Flow.stream("settled");
    groups.createToStream(name, "g", options()).get();
    put(name, 0, 4);
    List<String> seen = new ArrayList<>();
    PersistentSubscriptionListener listener = new PersistentSubscriptionListener() {
      @Override
      public void onEvent(PersistentSubscription consumer, int retries, ResolvedEvent event) {
        int number = Flow.amount(event);
        synchronized (seen) {
          seen.add(number + ":" + retries);
          if (seen.size() <= 6 && number == 1) {
            consumer.nack(NackAction.Retry, "one", event);
          } else if (seen.size() <= 6 && number == 2) {
            consumer.nack(NackAction.Park, "two", event);
          } else if (number == 3) {
            consumer.nack(NackAction.Skip, "", event);
          } else {
            consumer.ack(event);
          }
        }
      }
    };
    PersistentSubscription consumer = groups.subscribeToStream(name, "g", listener).get();
    untilParked(name, 2);
    groups.replayParkedMessagesToStream(name, "g").get();
    untilParked(name, 0);
    untilSeen(seen, 8);
    consumer.stop();
    synchronized (seen) {
      List<String> first = new ArrayList<>(seen.subList(0, 6));
      first.sort(null);
      Flow.equal(first, List.of("0:0", "1:0", "1:1", "1:2", "2:0", "3:0"));
      Flow.equal(seen.subList(6, 8), List.of("1:0", "2:0"));
    }
  }

  /** A consumer that joins again when its server is gone. */
  private static class Consumer extends PersistentSubscriptionListener {
    private final String name;
    private final Set<Integer> seen;
    private final AtomicInteger joined;

    Consumer(String name, Set<Integer> seen, AtomicInteger joined) {
      this.name = name;
      this.seen = seen;
      this.joined = joined;
      join();
    }

    private void join() {
      groups.subscribeToStream(name, "g", this).whenComplete((consumer, error) -> {
        if (error == null) {
          joined.incrementAndGet();
        } else {
          again();
        }
      });
    }

    private void again() {
      Thread later = new Thread(() -> {
        try {
          Thread.sleep(50);
          join();
        } catch (InterruptedException ended) {
          Thread.currentThread().interrupt();
        }
      });
      later.setDaemon(true);
      later.start();
    }

    @Override
    public void onEvent(PersistentSubscription consumer, int retries, ResolvedEvent event) {
      seen.add(Flow.amount(event));
      consumer.ack(event);
    }

    @Override
    public void onCancelled(PersistentSubscription consumer, Throwable error) {
      again();
    }
  }

  static void killed() throws Exception {
    String name = Flow.stream("group_survivor");
    groups.createToStream(name, "g", options()).get();
    put(name, 0, 200);
    Set<Integer> seen = ConcurrentHashMap.newKeySet();
    AtomicInteger joined = new AtomicInteger();
    for (int number = 0; number < 3; number++) {
      new Consumer(name, seen, joined);
    }
    while (seen.size() < 20) {
      Thread.sleep(1);
    }
    String restart = System.getenv("LEFTFOLD_RESTART");
    if (restart != null) {
      Flow.equal(new ProcessBuilder("sh", "-c", restart).inheritIO().start().waitFor(), 0);
    }
    while (true) {
      try {
        put(name, 200, 20);
        break;
      } catch (ExecutionException gone) {
        Thread.sleep(50);
      }
    }
    while (seen.size() < 220) {
      Thread.sleep(5);
    }
    Flow.equal(parked(name), 0L);
    if (restart != null && joined.get() <= 3) {
      throw new AssertionError("the consumers were not interrupted");
    }
  }
}

import io.kurrent.dbclient.*;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** The step in which the server is killed while others append and subscribe. */
class Killed {
  /** Appends one event after the other, and the same one again until it is acknowledged. */
  private static class Writer extends Thread {
    final String stream;
    final List<UUID> acknowledged = new CopyOnWriteArrayList<>();
    volatile int failures = 0;
    volatile boolean stopped = false;

    Writer(String stream) {
      this.stream = stream;
      setDaemon(true);
      start();
    }

    @Override
    public void run() {
      while (!stopped) {
        EventData next = Flow.deposited(acknowledged.size());
        while (true) {
          try {
            Flow.append(stream, StreamState.any(), next);
            break;
          } catch (Exception unknown) {
            // Whether it was stored is not known; the same event again is stored once.
            failures++;
            pause(50);
          }
        }
        acknowledged.add(next.getEventId());
      }
    }
  }

  /**
   * A subscription that comes back: this client cancels one when its server is gone, and opens no new one, so the program
   * does, behind the last event it was given.
   */
  private abstract static class Following extends SubscriptionListener {
    final List<UUID> events = new CopyOnWriteArrayList<>();
    volatile RecordedEvent last;
    volatile Subscription current;
    volatile int opened = 0;
    volatile boolean stopped = false;

    abstract CompletableFuture<Subscription> subscribe();

    void open() {
      subscribe();
    }

    @Override
    public void onConfirmation(Subscription subscription) {
      opened++;
      current = subscription;
    }

    @Override
    public void onEvent(Subscription subscription, ResolvedEvent event) {
      last = event.getOriginalEvent();
      events.add(last.getEventId());
    }

    // Also when it could not be opened.
    @Override
    public void onCancelled(Subscription subscription, Throwable exception) {
      if (!stopped) {
        CompletableFuture.runAsync(() -> {
          pause(50);
          open();
        });
      }
    }

    void stop() {
      stopped = true;
      current.stop();
    }
  }

  static void killed() throws Exception {
    List<Writer> writers = Stream.of(0, 1, 2, 3)
        .map(number -> new Writer(Flow.stream("survivor_" + number)))
        .collect(Collectors.toList());
    Writer first = writers.get(0);
    SubscriptionFilter everyone = SubscriptionFilter.newBuilder().addStreamNamePrefix("java_survivor_").build();
    Following toAll = new Following() {
      @Override
      CompletableFuture<Subscription> subscribe() {
        SubscribeToAllOptions options = SubscribeToAllOptions.get().filter(everyone);
        return Flow.client.subscribeToAll(this, last == null ? options.fromStart() : options.fromPosition(last.getPosition()));
      }
    };
    Following toStream = new Following() {
      @Override
      CompletableFuture<Subscription> subscribe() {
        SubscribeToStreamOptions options = SubscribeToStreamOptions.get();
        return Flow.client.subscribeToStream(
            first.stream, this, last == null ? options.fromStart() : options.fromRevision(last.getRevision()));
      }
    };
    toAll.open();
    toStream.open();
    until(() -> eachHas(writers, 25) && !toAll.events.isEmpty() && !toStream.events.isEmpty());
    String restart = System.getenv("LEFTFOLD_RESTART");
    if (restart != null) {
      // All four are waiting for an answer.
      Flow.equal(new ProcessBuilder("sh", "-c", restart).start().waitFor(), 0);
      int newest = writers.stream().mapToInt(writer -> writer.acknowledged.size()).max().getAsInt();
      until(() -> eachHas(writers, newest + 25));
    }
    for (Writer writer : writers) {
      writer.stopped = true;
    }
    for (Writer writer : writers) {
      writer.join();
    }
    Set<String> streams = writers.stream().map(writer -> writer.stream).collect(Collectors.toSet());
    List<UUID> stored = Flow.client.readAll(ReadAllOptions.get().fromStart()).get().getEvents().stream()
        .filter(resolved -> streams.contains(resolved.getEvent().getStreamId()))
        .map(resolved -> resolved.getEvent().getEventId())
        .collect(Collectors.toList());
    until(() -> toAll.events.size() >= stored.size() && toStream.events.size() >= first.acknowledged.size());
    toAll.stop();
    toStream.stop();
    for (Writer writer : writers) {
      Flow.equal(Flow.ids(Flow.read(writer.stream, ReadStreamOptions.get())), new ArrayList<>(writer.acknowledged));
    }
    Flow.equal(stored.size(), writers.stream().mapToInt(writer -> writer.acknowledged.size()).sum());
    Flow.equal(new ArrayList<>(toAll.events), stored);
    Flow.equal(new ArrayList<>(toStream.events), new ArrayList<>(first.acknowledged));
    if (restart != null) {
      // More than one append was interrupted, and both subscriptions.
      Flow.equal(writers.stream().filter(writer -> writer.failures > 0).count() > 1, true);
      Flow.equal(toAll.opened > 1 && toStream.opened > 1, true);
    }
  }

  private static boolean eachHas(List<Writer> writers, int count) {
    return writers.stream().allMatch(writer -> writer.acknowledged.size() >= count);
  }

  private static void until(BooleanSupplier condition) {
    while (!condition.getAsBoolean()) {
      pause(5);
    }
  }

  private static void pause(int millis) {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}

import io.kurrent.dbclient.*;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.stream.Collectors;

/**
 * What a program in Java does with an event store, step by step, through the published client. Each step says what it
 * expects; the first surprise ends the flow.
 *
 * LEFTFOLD_URL says where the server is; LEFTFOLD_RESTART is a command that kills it and starts it again.
 */
public class Flow {
  private static final String RUN = UUID.randomUUID().toString().substring(0, 8);
  private static KurrentDBClient client;

  public static void main(String[] arguments) throws Exception {
    String url = System.getenv().getOrDefault("LEFTFOLD_URL", "kurrentdb://127.0.0.1:2113?tls=false");
    // Unless it is told to be patient, this client is closed for good when a server is away for a second.
    String patient = url + (url.contains("?") ? "&" : "?") + "maxDiscoverAttempts=100";
    client = KurrentDBClient.create(KurrentDBConnectionString.parseOrThrow(patient));
    step("an account is opened and read in both directions", Flow::opened);
    step("a conflict names both versions", Flow::conflict);
    step("an append that is repeated is stored once", Flow::repeated);
    step("a missing stream is an error of its own", Flow::missing);
    step("filters choose by type and by stream", Flow::filtered);
    step("a subscription gives what is stored, says that it has caught up, and goes on live", Flow::followed);
    step("a subscription with a filter tells checkpoints", Flow::checkpoints);
    step("metadata bounds a stream", Flow::bounded);
    step("a deleted stream comes back with its next event", Flow::deleted);
    step("a tombstone is for ever", Flow::tombstoned);
    step("a link leads to its event", Flow::linked);
    step("several streams are appended to at once", Flow::several);
    step("a server that is killed loses nothing it acknowledged, and the client comes back", Flow::survives);
    client.shutdown().get();
    System.out.println("the flow of the Java client is through");
    System.exit(0);
  }

  private interface Step {
    void run() throws Exception;
  }

  private static void step(String what, Step body) throws Exception {
    body.run();
    System.out.println("ok  " + what);
  }

  private static void equal(Object got, Object wanted) {
    if (!wanted.equals(got)) {
      throw new AssertionError("expected " + wanted + ", got " + got);
    }
  }

  private static <E extends Throwable> E failsWith(Class<E> kind, Callable<?> call) throws Exception {
    try {
      call.call();
    } catch (ExecutionException error) {
      if (kind.isInstance(error.getCause())) {
        return kind.cast(error.getCause());
      }
      throw error;
    }
    throw new AssertionError("expected " + kind.getSimpleName());
  }

  private static String stream(String name) {
    return "java_" + name + "-" + RUN;
  }

  private static EventData event(String kind, int amount) {
    byte[] data = ("{\"amount\":" + amount + "}").getBytes(StandardCharsets.UTF_8);
    return EventData.builderAsJson(UUID.randomUUID(), kind + "_" + RUN, data).build();
  }

  private static EventData deposited(int amount) {
    return event("Deposited", amount);
  }

  private static WriteResult append(String name, StreamState state, EventData... events) throws Exception {
    return client.appendToStream(name, AppendToStreamOptions.get().streamState(state), events).get();
  }

  private static List<ResolvedEvent> read(String name, ReadStreamOptions options) throws Exception {
    return client.readStream(name, options).get().getEvents();
  }

  private static int amount(ResolvedEvent resolved) {
    String json = new String(resolved.getOriginalEvent().getEventData(), StandardCharsets.UTF_8);
    return Integer.parseInt(json.replaceAll("[^0-9]", ""));
  }

  private static List<Integer> amounts(List<ResolvedEvent> events) {
    return events.stream().map(Flow::amount).collect(Collectors.toList());
  }

  private static List<Long> revisions(String name) throws Exception {
    return read(name, ReadStreamOptions.get()).stream()
        .map(resolved -> resolved.getOriginalEvent().getRevision())
        .collect(Collectors.toList());
  }

  private static void opened() throws Exception {
    String account = stream("account");
    WriteResult written = append(account, StreamState.noStream(), deposited(100), event("Withdrawn", 30));
    equal(written.getNextExpectedRevision(), StreamState.streamRevision(1));
    int balance = 0;
    for (ResolvedEvent resolved : read(account, ReadStreamOptions.get())) {
      boolean plus = resolved.getEvent().getEventType().startsWith("Deposited");
      balance += plus ? amount(resolved) : -amount(resolved);
    }
    equal(balance, 70);
    equal(amounts(read(account, ReadStreamOptions.get().backwards().fromEnd().maxCount(1))), List.of(30));
    equal(amounts(read(account, ReadStreamOptions.get().fromRevision(1))), List.of(30));
  }

  private static void conflict() throws Exception {
    StreamState[] states = {StreamState.noStream(), StreamState.streamRevision(0), StreamState.streamRevision(9)};
    for (StreamState state : states) {
      WrongExpectedVersionException conflict = failsWith(
          WrongExpectedVersionException.class, () -> append(stream("account"), state, deposited(1)));
      equal(conflict.getStreamName(), stream("account"));
      equal(conflict.getActualState(), StreamState.streamRevision(1));
    }
  }

  private static void repeated() throws Exception {
    String name = stream("repeated");
    EventData once = deposited(5);
    WriteResult first = append(name, StreamState.noStream(), once);
    WriteResult again = append(name, StreamState.noStream(), once);
    equal(again.getLogPosition(), first.getLogPosition());
    equal(revisions(name), List.of(0L));
  }

  private static void missing() throws Exception {
    failsWith(StreamNotFoundException.class, () -> revisions(stream("missing")));
  }

  private static void filtered() throws Exception {
    List<ResolvedEvent> first = client.readAll(ReadAllOptions.get().fromStart().maxCount(1)).get().getEvents();
    equal(first.get(0).getEvent().getEventType().startsWith("$"), true);
    SubscriptionFilter byType = SubscriptionFilter.newBuilder().addEventTypePrefix("Withdrawn_" + RUN).build();
    SubscriptionFilter byStream =
        SubscriptionFilter.newBuilder().withStreamNameRegularExpression("^" + stream("account") + "$").build();
    equal(amounts(firstOf(1, new Listener(), SubscribeToAllOptions.get().fromStart().filter(byType))), List.of(30));
    equal(amounts(firstOf(2, new Listener(), SubscribeToAllOptions.get().fromStart().filter(byStream))), List.of(100, 30));
  }

  /** Keeps what a subscription brings. */
  private static class Listener extends SubscriptionListener {
    final BlockingQueue<ResolvedEvent> events = new LinkedBlockingQueue<>();
    final CountDownLatch caughtUp = new CountDownLatch(1);

    @Override
    public void onEvent(Subscription subscription, ResolvedEvent event) {
      events.add(event);
    }

    @Override
    public void onCaughtUp(Subscription subscription, Instant timestamp, Long revision, Position position) {
      caughtUp.countDown();
    }

    List<ResolvedEvent> take(int count) throws InterruptedException {
      List<ResolvedEvent> taken = new ArrayList<>();
      while (taken.size() < count) {
        taken.add(events.take());
      }
      return taken;
    }
  }

  private static List<ResolvedEvent> firstOf(int count, Listener listener, SubscribeToAllOptions options)
      throws Exception {
    Subscription subscription = client.subscribeToAll(listener, options).get();
    List<ResolvedEvent> events = listener.take(count);
    subscription.stop();
    return events;
  }

  private static void followed() throws Exception {
    String name = stream("followed");
    append(name, StreamState.any(), deposited(1), deposited(2));
    Listener listener = new Listener();
    Subscription subscription =
        client.subscribeToStream(name, listener, SubscribeToStreamOptions.get().fromStart()).get();
    listener.caughtUp.await();
    append(name, StreamState.any(), deposited(3), deposited(4));
    List<ResolvedEvent> events = listener.take(4);
    equal(amounts(events), List.of(1, 2, 3, 4));
    subscription.stop();
    Listener behind = new Listener();
    subscription = client.subscribeToStream(name, behind, SubscribeToStreamOptions.get().fromRevision(1)).get();
    equal(amounts(behind.take(2)), List.of(3, 4));
    subscription.stop();
    Position position = events.get(1).getOriginalEvent().getPosition();
    equal(amounts(firstOf(2, new Listener(), SubscribeToAllOptions.get().fromPosition(position))), List.of(3, 4));
  }

  private static void checkpoints() throws Exception {
    CompletableFuture<Position> told = new CompletableFuture<>();
    SubscriptionFilter never = SubscriptionFilter.newBuilder()
        .addEventTypePrefix("Never_" + RUN)
        .withMaxWindow(1)
        .withCheckpointer((subscription, position) -> {
          told.complete(position);
          return CompletableFuture.completedFuture(null);
        })
        .build();
    Subscription subscription =
        client.subscribeToAll(new Listener(), SubscribeToAllOptions.get().fromStart().filter(never)).get();
    told.get();
    subscription.stop();
  }

  private static void bounded() throws Exception {
    String name = stream("bounded");
    append(name, StreamState.any(), deposited(1), deposited(2), deposited(3), deposited(4));
    StreamMetadata metadata = new StreamMetadata();
    metadata.setMaxCount(2L);
    metadata.setCustomProperties(Collections.singletonMap("owner", "ann"));
    client.setStreamMetadata(name, metadata).get();
    equal(revisions(name), List.of(2L, 3L));
    StreamMetadata stored = client.getStreamMetadata(name).get();
    equal(stored.getMaxCount(), 2L);
    equal(stored.getCustomProperties().get("owner"), "ann");
  }

  private static void deleted() throws Exception {
    String name = stream("deleted");
    append(name, StreamState.any(), deposited(1), deposited(2));
    failsWith(WrongExpectedVersionException.class,
        () -> client.deleteStream(name, DeleteStreamOptions.get().streamState(StreamState.streamRevision(0))).get());
    client.deleteStream(name, DeleteStreamOptions.get().streamState(StreamState.streamRevision(1))).get();
    failsWith(StreamNotFoundException.class, () -> revisions(name));
    append(name, StreamState.noStream(), deposited(3));
    equal(revisions(name), List.of(2L));
  }

  private static void tombstoned() throws Exception {
    String name = stream("tombstoned");
    append(name, StreamState.any(), deposited(1));
    client.tombstoneStream(name).get();
    // Where this client has no exception of its own for it, it passes the server's words on.
    Exception unread = failsWith(RuntimeException.class, () -> revisions(name));
    equal(unread.getMessage().contains("is deleted"), true);
    Exception refused = failsWith(RuntimeException.class, () -> append(name, StreamState.any(), deposited(2)));
    equal(refused.getMessage().contains("deleted"), true);
  }

  private static void linked() throws Exception {
    String name = stream("linked");
    String target = stream("account");
    byte[] place = ("0@" + target).getBytes(StandardCharsets.UTF_8);
    append(name, StreamState.any(), EventData.builderAsBinary(UUID.randomUUID(), "$>", place).build());
    ResolvedEvent resolved = read(name, ReadStreamOptions.get().resolveLinkTos()).get(0);
    equal(resolved.getEvent().getStreamId(), target);
    equal(resolved.getLink().getStreamId(), name);
  }

  private static void several() throws Exception {
    String from = stream("from");
    String to = stream("to");
    Callable<MultiStreamAppendResponse> transfer = () -> {
      Iterator<AppendStreamRequest> requests = List.of(
          new AppendStreamRequest(from, List.of(event("Withdrawn", 5)).iterator(), StreamState.noStream()),
          new AppendStreamRequest(to, List.of(deposited(5)).iterator(), StreamState.noStream())).iterator();
      return client.multiStreamAppend(requests).get();
    };
    equal(transfer.call().getResults().size(), 2);
    failsWith(WrongExpectedVersionException.class, transfer);
    equal(revisions(to), List.of(0L));
  }

  private static void survives() throws Exception {
    String name = stream("survivor");
    List<UUID> acknowledged = Collections.synchronizedList(new ArrayList<>());
    CountDownLatch stopped = new CountDownLatch(1);
    Thread writer = new Thread(() -> {
      for (int amount = 0; stopped.getCount() > 0; amount++) {
        EventData next = deposited(amount);
        while (true) {
          try {
            append(name, StreamState.any(), next);
            break;
          } catch (Exception unknown) {
            // Whether it was stored is not known; the same event again is stored once.
            pause(50);
          }
        }
        acknowledged.add(next.getEventId());
      }
    });
    writer.start();
    while (acknowledged.size() < 50) {
      pause(5);
    }
    int before = acknowledged.size();
    String restart = System.getenv("LEFTFOLD_RESTART");
    if (restart != null) {
      equal(new ProcessBuilder("sh", "-c", restart).start().waitFor(), 0);
    }
    while (acknowledged.size() < before + 50) {
      pause(5);
    }
    stopped.countDown();
    writer.join();
    List<UUID> stored = read(name, ReadStreamOptions.get()).stream()
        .map(resolved -> resolved.getEvent().getEventId())
        .collect(Collectors.toList());
    equal(stored, new ArrayList<>(acknowledged));
  }

  private static void pause(int millis) {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}

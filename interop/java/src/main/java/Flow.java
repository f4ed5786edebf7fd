import io.kurrent.dbclient.*;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
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
  static KurrentDBClient client;

  public static void main(String[] arguments) throws Exception {
    String url = System.getenv().getOrDefault("LEFTFOLD_URL", "kurrentdb://127.0.0.1:2113?tls=false");
    // With its defaults, this client closes permanently when a server is away for a second.
    String patient = url + (url.contains("?") ? "&" : "?") + "maxDiscoverAttempts=100";
    client = KurrentDBClient.create(KurrentDBConnectionString.parseOrThrow(patient));
    step("an account is opened and read in both directions", Flow::opened);
    step("a conflict names both versions", Flow::conflict);
    step("an append that is repeated is stored once, whatever it expected", Flow::repeated);
    step("bytes and metadata come back as they were", Flow::kept);
    step("a missing stream is an error of its own", Flow::missing);
    step("everything is read in both directions, from any position", Flow::everything);
    step("filters choose by type and by stream, by prefix and by expression", Flow::filtered);
    step("a subscription gives what is stored, says that it has caught up, and goes on live", Flow::followed);
    step("a subscription with a filter tells checkpoints, and one can go on from there", Flow::checkpoints);
    step("metadata bounds a stream, and keeps keys of one's own", Flow::bounded);
    step("ages, caching and rights come back as they were set", Flow::governed);
    step("a link leads to its event, also in a subscription, or shows itself", Flow::linked);
    step("a server is killed under appends and subscriptions: nothing is lost, nothing is delivered twice", Killed::killed);
    step("what was there before the server was killed still is", Flow::stillThere);
    step("a deleted stream comes back with its next event", Flow::deleted);
    step("a tombstone is permanent, and ends subscriptions", Flow::tombstoned);
    step("several streams are appended to at once, or none", Flow::several);
    step("an append to several streams of which one is deleted is refused, and the client says why", Flow::severalDeleted);
    step("an event id belongs to its stream", Flow::copied);
    step("a group is created once, found, changed and deleted", Groups::managed);
    step("a consumer acknowledges, retries, parks and skips, and gets what is replayed", Groups::settled);
    step("a server is killed under a group: every event is seen, and nothing is parked", Groups::killed);
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

  static void equal(Object got, Object wanted) {
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

  static String stream(String name) {
    return "java_" + name + "-" + RUN;
  }

  private static EventData event(String kind, int amount) {
    byte[] data = ("{\"amount\":" + amount + "}").getBytes(StandardCharsets.UTF_8);
    return EventData.builderAsJson(UUID.randomUUID(), kind + "_" + RUN, data).build();
  }

  static EventData deposited(int amount) {
    return event("Deposited", amount);
  }

  static WriteResult append(String name, StreamState state, EventData... events) throws Exception {
    return client.appendToStream(name, AppendToStreamOptions.get().streamState(state), events).get();
  }

  static List<ResolvedEvent> read(String name, ReadStreamOptions options) throws Exception {
    return client.readStream(name, options).get().getEvents();
  }

  static int amount(ResolvedEvent resolved) {
    String json = new String(resolved.getOriginalEvent().getEventData(), StandardCharsets.UTF_8);
    return Integer.parseInt(json.replaceAll("[^0-9]", ""));
  }

  private static List<Integer> amounts(List<ResolvedEvent> events) {
    return events.stream().map(Flow::amount).collect(Collectors.toList());
  }

  static List<UUID> ids(List<ResolvedEvent> events) {
    return events.stream().map(resolved -> resolved.getOriginalEvent().getEventId()).collect(Collectors.toList());
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
    equal(amounts(read(account, ReadStreamOptions.get().backwards().fromRevision(0))), List.of(100));
  }

  private static void conflict() throws Exception {
    StreamState[] states = {StreamState.noStream(), StreamState.streamRevision(0), StreamState.streamRevision(9)};
    for (StreamState state : states) {
      WrongExpectedVersionException conflict = failsWith(
          WrongExpectedVersionException.class, () -> append(stream("account"), state, deposited(1)));
      equal(conflict.getStreamName(), stream("account"));
      // This client takes the expectation "no stream" for revision 0 here.
      equal(conflict.getExpectedState(), state.equals(StreamState.noStream()) ? StreamState.streamRevision(0) : state);
      equal(conflict.getActualState(), StreamState.streamRevision(1));
    }
    WrongExpectedVersionException conflict = failsWith(
        WrongExpectedVersionException.class, () -> append(stream("nobody"), StreamState.streamExists(), deposited(1)));
    equal(conflict.getActualState(), StreamState.noStream());
  }

  private static final EventData ONCE = deposited(5);
  private static Position firstAnswer;

  private static void repeated() throws Exception {
    String name = stream("repeated");
    firstAnswer = append(name, StreamState.noStream(), ONCE).getLogPosition();
    for (StreamState state : List.of(StreamState.noStream(), StreamState.any(), StreamState.streamExists())) {
      equal(append(name, state, ONCE).getLogPosition(), firstAnswer);
    }
    EventData next = deposited(6);
    Position second = append(name, StreamState.streamRevision(0), next).getLogPosition();
    equal(append(name, StreamState.streamRevision(0), next).getLogPosition(), second);
    equal(revisions(name), List.of(0L, 1L));
  }

  private static void kept() throws Exception {
    String name = stream("bytes");
    byte[] about = "{\"by\":\"ann\"}".getBytes(StandardCharsets.UTF_8);
    EventData bytes = EventData.builderAsBinary(UUID.randomUUID(), "Bytes", new byte[] {0, 1, -1})
        .metadataAsBytes(new byte[] {9}).build();
    EventData json = EventData.builderAsJson(UUID.randomUUID(), "Json", about).metadataAsBytes(about).build();
    append(name, StreamState.any(), bytes, json);
    Iterator<ResolvedEvent> stored = read(name, ReadStreamOptions.get()).iterator();
    for (EventData wanted : List.of(bytes, json)) {
      RecordedEvent event = stored.next().getEvent();
      equal(event.getEventId(), wanted.getEventId());
      equal(event.getContentType(), wanted.getContentType());
      equal(Arrays.equals(event.getEventData(), wanted.getEventData()), true);
      equal(Arrays.equals(event.getUserMetadata(), wanted.getUserMetadata()), true);
    }
  }

  private static void missing() throws Exception {
    failsWith(StreamNotFoundException.class, () -> revisions(stream("missing")));
  }

  private static List<ResolvedEvent> readAll(ReadAllOptions options) throws Exception {
    return client.readAll(options).get().getEvents();
  }

  private static void everything() throws Exception {
    ResolvedEvent oldest = readAll(ReadAllOptions.get().fromStart().maxCount(1)).get(0);
    equal(oldest.getEvent().getEventType().startsWith("$"), true);
    List<ResolvedEvent> account = read(stream("account"), ReadStreamOptions.get());
    Position first = account.get(0).getEvent().getPosition();
    Position second = account.get(1).getEvent().getPosition();
    // A position is part of what is read forwards from it, and not of what is read backwards.
    equal(ids(readAll(ReadAllOptions.get().fromPosition(first).maxCount(2))), ids(account));
    equal(ids(readAll(ReadAllOptions.get().backwards().fromPosition(second).maxCount(1))), ids(account.subList(0, 1)));
    List<ResolvedEvent> newest = readAll(ReadAllOptions.get().backwards().fromEnd().maxCount(1));
    Position last = newest.get(0).getEvent().getPosition();
    equal(ids(readAll(ReadAllOptions.get().fromPosition(last))), ids(newest));
  }

  // This client reads everything without a filter, and filters subscriptions.
  private static void filtered() throws Exception {
    String account = stream("account");
    List<SubscriptionFilter> byType = List.of(
        SubscriptionFilter.newBuilder().addEventTypePrefix("Withdrawn_" + RUN).build(),
        SubscriptionFilter.newBuilder().withEventTypeRegularExpression("^With.*_" + RUN + "$").build());
    List<SubscriptionFilter> byStream = List.of(
        SubscriptionFilter.newBuilder().addStreamNamePrefix(account).build(),
        SubscriptionFilter.newBuilder().withStreamNameRegularExpression("^" + account + "$").build());
    for (SubscriptionFilter filter : byType) {
      equal(amounts(firstOf(1, SubscribeToAllOptions.get().fromStart().filter(filter))), List.of(30));
    }
    for (SubscriptionFilter filter : byStream) {
      equal(amounts(firstOf(2, SubscribeToAllOptions.get().fromStart().filter(filter))), List.of(100, 30));
    }
  }

  /** Keeps what a subscription brings. */
  private static class Listener extends SubscriptionListener {
    final BlockingQueue<ResolvedEvent> events = new LinkedBlockingQueue<>();
    final CompletableFuture<Long> caughtUp = new CompletableFuture<>();
    final CompletableFuture<Throwable> ended = new CompletableFuture<>();

    @Override
    public void onEvent(Subscription subscription, ResolvedEvent event) {
      events.add(event);
    }

    @Override
    public void onCaughtUp(Subscription subscription, Instant timestamp, Long revision, Position position) {
      caughtUp.complete(revision);
    }

    @Override
    public void onCancelled(Subscription subscription, Throwable exception) {
      ended.complete(exception);
    }

    List<ResolvedEvent> take(int count) throws InterruptedException {
      List<ResolvedEvent> taken = new ArrayList<>();
      while (taken.size() < count) {
        taken.add(events.take());
      }
      return taken;
    }
  }

  private static List<ResolvedEvent> firstOf(int count, SubscribeToAllOptions options) throws Exception {
    Listener listener = new Listener();
    Subscription subscription = client.subscribeToAll(listener, options).get();
    List<ResolvedEvent> events = listener.take(count);
    subscription.stop();
    return events;
  }

  private static List<ResolvedEvent> firstOf(int count, String name, SubscribeToStreamOptions options) throws Exception {
    Listener listener = new Listener();
    Subscription subscription = client.subscribeToStream(name, listener, options).get();
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
    equal(listener.caughtUp.get(), 1L);
    append(name, StreamState.any(), deposited(3), deposited(4));
    List<ResolvedEvent> events = listener.take(4);
    equal(amounts(events), List.of(1, 2, 3, 4));
    subscription.stop();
    equal(amounts(firstOf(2, name, SubscribeToStreamOptions.get().fromRevision(1))), List.of(3, 4));
    Position position = events.get(1).getOriginalEvent().getPosition();
    equal(amounts(firstOf(2, SubscribeToAllOptions.get().fromPosition(position))), List.of(3, 4));
  }

  private static void checkpoints() throws Exception {
    String name = stream("checked");
    append(name, StreamState.any(), deposited(1), deposited(2), deposited(3));
    Position first = read(name, ReadStreamOptions.get()).get(0).getEvent().getPosition();
    CompletableFuture<Position> told = new CompletableFuture<>();
    SubscriptionFilter never = SubscriptionFilter.newBuilder()
        .addEventTypePrefix("Never_" + RUN)
        .withMaxWindow(1)
        .withCheckpointer((subscription, position) -> {
          // Not before this stream's first event, so that what comes behind the checkpoint is known.
          if (position.compareTo(first) >= 0) {
            told.complete(position);
          }
          return CompletableFuture.completedFuture(null);
        })
        .build();
    Listener listener = new Listener();
    Subscription subscription =
        client.subscribeToAll(listener, SubscribeToAllOptions.get().fromStart().filter(never)).get();
    Position checkpoint = told.get();
    subscription.stop();
    equal(listener.events.size(), 0);
    append(name, StreamState.any(), deposited(4));
    List<ResolvedEvent> expected = read(name, ReadStreamOptions.get()).stream()
        .filter(resolved -> resolved.getEvent().getPosition().compareTo(checkpoint) > 0)
        .collect(Collectors.toList());
    SubscriptionFilter own = SubscriptionFilter.newBuilder().addStreamNamePrefix(name).build();
    SubscribeToAllOptions behind = SubscribeToAllOptions.get().fromPosition(checkpoint).filter(own);
    equal(ids(firstOf(expected.size(), behind)), ids(expected));
  }

  private static void bounded() throws Exception {
    String name = stream("bounded");
    append(name, StreamState.any(), deposited(1), deposited(2), deposited(3), deposited(4));
    StreamMetadata metadata = new StreamMetadata();
    metadata.setMaxCount(2L);
    metadata.setCustomProperties(Map.of("owner", "ann", "limits", Map.of("daily", List.of(1, 2))));
    setMetadata(name, StreamState.noStream(), metadata);
    equal(revisions(name), List.of(2L, 3L));
    equal(client.getStreamMetadata(name).get(), metadata);
    StreamMetadata truncated = new StreamMetadata();
    truncated.setTruncateBefore(3L);
    setMetadata(name, StreamState.streamRevision(0), truncated);
    equal(revisions(name), List.of(3L));
    failsWith(WrongExpectedVersionException.class, () -> setMetadata(name, StreamState.streamRevision(0), metadata));
    equal(client.getStreamMetadata(name).get(), truncated);
  }

  private static WriteResult setMetadata(String name, StreamState state, StreamMetadata metadata) throws Exception {
    return client.setStreamMetadata(name, AppendToStreamOptions.get().streamState(state), metadata).get();
  }

  private static void governed() throws Exception {
    String name = stream("governed");
    append(name, StreamState.any(), deposited(1));
    StreamMetadata metadata = new StreamMetadata();
    metadata.setMaxAge(3600L);
    metadata.setCacheControl(10L);
    metadata.setAcl(Acls.newStreamAcl()
        .addReadRoles("ann", "bob").addWriteRoles("ann").addDeleteRoles("$admins").addMetaReadRoles("$all"));
    client.setStreamMetadata(name, metadata).get();
    equal(client.getStreamMetadata(name).get(), metadata);
    // Nothing is an hour old yet.
    equal(revisions(name), List.of(0L));
  }

  private static void linked() throws Exception {
    String name = stream("linked");
    String target = stream("account");
    EventData[] links = List.of("0@" + target, "7@" + stream("missing")).stream()
        .map(place -> EventData.builderAsBinary(UUID.randomUUID(), "$>", place.getBytes(StandardCharsets.UTF_8)).build())
        .toArray(EventData[]::new);
    append(name, StreamState.any(), links);
    for (ResolvedEvent unresolved : read(name, ReadStreamOptions.get())) {
      equal(unresolved.getEvent().getEventType(), "$>");
      equal(unresolved.getLink() == null, true);
    }
    List<ResolvedEvent> read = read(name, ReadStreamOptions.get().resolveLinkTos());
    List<ResolvedEvent> subscribed = firstOf(2, name, SubscribeToStreamOptions.get().fromStart().resolveLinkTos());
    for (List<ResolvedEvent> events : List.of(read, subscribed)) {
      equal(events.size(), 2);
      equal(events.get(0).getEvent().getStreamId(), target);
      equal(events.get(1).getEvent() == null, true);
      for (int revision = 0; revision < 2; revision++) {
        equal(events.get(revision).getLink().getStreamId(), name);
        equal(events.get(revision).getLink().getRevision(), (long) revision);
      }
    }
  }

  private static void stillThere() throws Exception {
    equal(amounts(read(stream("account"), ReadStreamOptions.get())), List.of(100, 30));
    for (StreamState state : List.of(StreamState.any(), StreamState.noStream())) {
      equal(append(stream("repeated"), state, ONCE).getLogPosition(), firstAnswer);
    }
    equal(revisions(stream("bounded")), List.of(3L));
    equal(client.getStreamMetadata(stream("governed")).get().getMaxAge(), 3600L);
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
    Listener listener = new Listener();
    client.subscribeToStream(name, listener, SubscribeToStreamOptions.get().fromStart()).get();
    listener.take(1);
    client.tombstoneStream(name).get();
    equal(listener.ended.get().getMessage().contains("is deleted"), true);
    // Where this client has no exception of its own for it, it passes the server's words on.
    Exception unread = failsWith(RuntimeException.class, () -> revisions(name));
    equal(unread.getMessage().contains("is deleted"), true);
    Exception refused = failsWith(RuntimeException.class, () -> append(name, StreamState.any(), deposited(2)));
    equal(refused.getMessage().contains("deleted"), true);
  }

  private static void copied() throws Exception {
    EventData event = deposited(7);
    List<String> names = List.of(stream("one"), stream("other"));
    for (String name : names) {
      Position first = append(name, StreamState.noStream(), event).getLogPosition();
      equal(append(name, StreamState.noStream(), event).getLogPosition(), first);
    }
    for (String name : names) {
      equal(ids(read(name, ReadStreamOptions.get())), List.of(event.getEventId()));
    }
  }

  private static MultiStreamAppendResponse transfer(EventData withdrawal, EventData deposit) throws Exception {
    Iterator<AppendStreamRequest> requests = List.of(
        new AppendStreamRequest(stream("from"), List.of(withdrawal).iterator(), StreamState.noStream()),
        new AppendStreamRequest(stream("to"), List.of(deposit).iterator(), StreamState.noStream())).iterator();
    return client.multiStreamAppend(requests).get();
  }

  private static void several() throws Exception {
    EventData withdrawal = event("Withdrawn", 5);
    EventData deposit = deposited(5);
    MultiStreamAppendResponse first = transfer(withdrawal, deposit);
    equal(first.getResults().size(), 2);
    equal(transfer(withdrawal, deposit).getPosition(), first.getPosition());
    failsWith(WrongExpectedVersionException.class, () -> transfer(event("Withdrawn", 5), deposited(5)));
    equal(revisions(stream("from")), List.of(0L));
    equal(revisions(stream("to")), List.of(0L));
  }

  private static MultiStreamAppendResponse appendBeside(String name, StreamState state) throws Exception {
    Iterator<AppendStreamRequest> requests = List.of(
        new AppendStreamRequest(stream("beside"), List.of(deposited(1)).iterator(), StreamState.any()),
        new AppendStreamRequest(name, List.of(deposited(3)).iterator(), state)).iterator();
    return client.multiStreamAppend(requests).get();
  }

  private static void severalDeleted() throws Exception {
    String soft = stream("soft");
    String hard = stream("hard");
    for (String name : List.of(soft, hard)) {
      append(name, StreamState.noStream(), deposited(1), deposited(2));
    }
    client.deleteStream(soft).get();
    client.tombstoneStream(hard).get();
    for (StreamState state : List.of(StreamState.any(), StreamState.noStream(), StreamState.streamExists(), StreamState.streamRevision(1))) {
      failsWith(StreamTombstonedException.class, () -> appendBeside(hard, state));
    }
    failsWith(WrongExpectedVersionException.class, () -> appendBeside(soft, StreamState.streamRevision(7)));
    failsWith(StreamDeletedException.class, () -> appendBeside(soft, StreamState.streamExists()));
    failsWith(StreamNotFoundException.class, () -> revisions(stream("beside")));
    appendBeside(soft, StreamState.noStream());
    equal(revisions(soft), List.of(2L));
    equal(revisions(stream("beside")), List.of(0L));
  }
}

import io.kurrent.dbclient.*;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;

/**
 * What a program in Java meets at a server with TLS and users: a right, a wrong and an insufficient user, and an API key. Each
 * step says what it expects; the first surprise ends the flow.
 *
 * LEFTFOLD_ADDRESS, LEFTFOLD_CA_FILE, LEFTFOLD_KEY and LEFTFOLD_NARROW_KEY describe the server; see server.sh.
 */
public class Secured {
  public static void main(String[] arguments) throws Exception {
    KurrentDBClient ann = user("ann");
    KurrentDBClient bob = user("bob");
    step("a user with the right appends and reads", () -> {
      put(ann, "secret-1", "7");
      put(ann, "account-1", "1");
      equal(data(ann, "secret-1"), Collections.singletonList("7"));
    });
    step("a user without the right is denied, and reads of everything leave out what is hidden", () -> {
      refused(() -> data(bob, "secret-1"), "PERMISSION_DENIED", "AccessDenied");
      refused(() -> put(bob, "secret-1", "8"), "PERMISSION_DENIED", "AccessDenied");
      List<String> streams = streams(bob);
      equal(streams.contains("account-1"), true);
      equal(streams.contains("secret-1"), false);
    });
    step("a wrong password is refused", () -> {
      refused(() -> data(connect("ann", "wrong-password"), "account-1"), "UNAUTHENTICATED", "NotAuthenticated");
    });
    step("an API key is the password of any login, within its rights", () -> {
      KurrentDBClient shop = connect("shop", System.getenv("LEFTFOLD_KEY"));
      KurrentDBClient tenant = connect("tenant", System.getenv("LEFTFOLD_NARROW_KEY"));
      put(shop, "account-2", "2");
      refused(() -> put(tenant, "account-2", "3"), "PERMISSION_DENIED", "AccessDenied");
      equal(streams(tenant).stream().anyMatch(name -> name.startsWith("account-")), false);
    });
    System.out.println("the flow of the Java client with TLS and users is through");
    System.exit(0);
  }

  private static KurrentDBClient user(String login) throws Exception {
    return connect(login, "password-of-" + login);
  }

  private static KurrentDBClient connect(String login, String password) throws Exception {
    String url = "kurrentdb://" + login + ":" + password + "@" + System.getenv("LEFTFOLD_ADDRESS")
        + "?tls=true&tlsCaFile=" + System.getenv("LEFTFOLD_CA_FILE");
    return KurrentDBClient.create(KurrentDBConnectionString.parseOrThrow(url));
  }

  private static WriteResult put(KurrentDBClient client, String stream, String data) throws Exception {
    EventData event = EventDataBuilder.binary("Opened", data.getBytes(StandardCharsets.UTF_8)).build();
    return client.appendToStream(stream, event).get();
  }

  private static List<String> data(KurrentDBClient client, String stream) throws Exception {
    return client.readStream(stream, ReadStreamOptions.get()).get().getEvents().stream()
        .map(resolved -> new String(resolved.getEvent().getEventData(), StandardCharsets.UTF_8))
        .collect(Collectors.toList());
  }

  private static List<String> streams(KurrentDBClient client) throws Exception {
    return client.readAll(ReadAllOptions.get()).get().getEvents().stream()
        .map(resolved -> resolved.getEvent().getStreamId())
        .collect(Collectors.toList());
  }

  /** The call fails, and says so by one of these words: the client has no class of its own for each kind. */
  private static void refused(Callable<?> call, String... words) throws Exception {
    try {
      call.call();
    } catch (ExecutionException error) {
      String told = error.getCause().getClass().getSimpleName() + ": " + error.getCause().getMessage();
      for (String word : words) {
        if (told.contains(word)) {
          return;
        }
      }
      throw new AssertionError("expected " + String.join(" or ", words) + ", got " + told, error);
    }
    throw new AssertionError("expected a failure");
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
}

package examples;

import com.google.gson.Gson;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.posthorn.v1.AdminServiceGrpc;
import dev.posthorn.v1.AdminServiceGrpc.AdminServiceBlockingStub;
import dev.posthorn.v1.Content;
import dev.posthorn.v1.CreateUserTokenRequest;
import dev.posthorn.v1.ListNotificationsRequest;
import dev.posthorn.v1.NotificationArrived;
import dev.posthorn.v1.NotificationFilter;
import dev.posthorn.v1.Recipients;
import dev.posthorn.v1.SendBatchRequest;
import dev.posthorn.v1.SendRequest;
import dev.posthorn.v1.SendResult;
import dev.posthorn.v1.SendServiceGrpc;
import dev.posthorn.v1.SendServiceGrpc.SendServiceBlockingStub;
import dev.posthorn.v1.StreamServiceGrpc;
import dev.posthorn.v1.StreamServiceGrpc.StreamServiceBlockingStub;
import dev.posthorn.v1.SubscribeRequest;
import dev.posthorn.v1.SubscribeResponse;
import dev.posthorn.v1.WhoAmIRequest;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;

/**
 * A client of Posthorn in Java, with nothing but grpc-java and code generated from proto/ (pom.xml).
 *
 * <pre>./build.sh && POSTHORN_API_KEY=... java -cp 'target/classes:target/lib/*' examples.Client</pre>
 *
 * Tells what it learns in one JSON object a line, and ends when ada is sent "The end".
 */
public final class Client {
  static final String ADDRESS = System.getenv().getOrDefault("POSTHORN_ADDRESS", "127.0.0.1:50051");
  static final String API_KEY = System.getenv("POSTHORN_API_KEY");
  static final String USER = System.getenv().getOrDefault("POSTHORN_USER", "ada");

  /** After these the same call may succeed: repeat it, a send with the same idempotency key. */
  static final Set<Status.Code> RETRYABLE = EnumSet.of(
      Status.Code.UNAVAILABLE, Status.Code.DEADLINE_EXCEEDED, Status.Code.RESOURCE_EXHAUSTED, Status.Code.CANCELLED);

  public static void main(String[] args) throws InterruptedException {
    ManagedChannel channel = Grpc.newChannelBuilder(ADDRESS, InsecureChannelCredentials.create())
        // A connection that died without a word is noticed after 30 s; without this, never.
        .keepAliveTime(20, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .build();
    try {
      checkHealth(channel);
      SendServiceBlockingStub sender = SendServiceGrpc.newBlockingStub(channel).withInterceptors(bearer(API_KEY));
      sendTwice(sender);
      sendSomethingWrong(sender);
      listAll(sender);
      AdminServiceBlockingStub admin = AdminServiceGrpc.newBlockingStub(channel).withInterceptors(bearer(API_KEY));
      // Tokens are made where the API key is, in your service; the user's device gets only the token.
      String token = admin.createUserToken(CreateUserTokenRequest.newBuilder().setUserId(USER).build()).getToken();
      callUntilLimited(admin);
      follow(StreamServiceGrpc.newBlockingStub(channel).withInterceptors(bearer(token)), arrived -> {
        String title = arrived.getEntry().getContent().getTitle();
        tell("arrived", Map.of(
            "sequence", arrived.getEntry().getSequence(), "title", title, "replayed", arrived.getReplayed()));
        return !title.equals("The end");
      });
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  static void checkHealth(ManagedChannel channel) {
    HealthCheckRequest request = HealthCheckRequest.newBuilder().setService("posthorn.v1.SendService").build();
    tell("health", Map.of("status", HealthGrpc.newBlockingStub(channel).check(request).getStatus().name()));
  }

  static void sendTwice(SendServiceBlockingStub sender) {
    SendRequest request = SendRequest.newBuilder()
        .setTo(Recipients.newBuilder().addUserIds(USER))
        .setContent(Content.newBuilder().setTitle("Your order is on its way").setUrl("/orders/42"))
        .setIdempotencyKey("order-42-shipped-" + USER) // the same for every try, whatever becomes of it
        .build();
    for (String fact : List.of("sent", "repeated")) {
      var response = sender.withDeadlineAfter(10, TimeUnit.SECONDS).send(request);
      tell(fact, Map.of("ids", response.getResultsList().stream().map(SendResult::getNotificationId).toList()));
    }
  }

  static void sendSomethingWrong(SendServiceBlockingStub sender) {
    SendRequest request = SendRequest.newBuilder()
        .setTo(Recipients.newBuilder().addUserIds("ada lovelace"))
        .setContent(Content.newBuilder().setTitle("Hello"))
        .build();
    try {
      sender.send(request);
    } catch (StatusRuntimeException error) {
      Map<String, String> fields = new TreeMap<>();
      for (var violation : findDetail(error, BadRequest.getDefaultInstance()).getFieldViolationsList()) {
        fields.put(violation.getField(), violation.getDescription());
      }
      String reason = findDetail(error, ErrorInfo.getDefaultInstance()).getReason();
      tell("refused", Map.of("code", error.getStatus().getCode().name(), "reason", reason, "fields", fields));
    }
  }

  static void listAll(SendServiceBlockingStub sender) {
    String reader = "reader-" + UUID.randomUUID();
    SendRequest item = SendRequest.newBuilder()
        .setTo(Recipients.newBuilder().addUserIds(reader))
        .setContent(Content.newBuilder().setTitle("One of many"))
        .build();
    var batch = sender.sendBatch(SendBatchRequest.newBuilder().addAllItems(Collections.nCopies(25, item)).build());
    List<String> sent = batch.getResultsList().stream()
        .map(result -> result.getResponse().getResults(0).getNotificationId())
        .toList();
    List<String> listed = new ArrayList<>();
    var request = ListNotificationsRequest.newBuilder()
        .setPageSize(10)
        .setFilter(NotificationFilter.newBuilder().setUserId(reader));
    int pages = 0;
    do {
      var page = sender.listNotifications(request.build());
      page.getNotificationsList().forEach(notification -> listed.add(notification.getId()));
      request.setPageToken(page.getNextPageToken());
      pages++;
    } while (!request.getPageToken().isEmpty());
    tell("listed", Map.of("pages", pages, "sent", sent, "ids", listed));
  }

  static void callUntilLimited(AdminServiceBlockingStub admin) throws InterruptedException {
    for (;;) {
      try {
        admin.whoAmI(WhoAmIRequest.getDefaultInstance());
      } catch (StatusRuntimeException error) {
        if (error.getStatus().getCode() != Status.Code.RESOURCE_EXHAUSTED) {
          throw error;
        }
        var delay = findDetail(error, RetryInfo.getDefaultInstance()).getRetryDelay();
        double delayMs = delay.getSeconds() * 1000.0 + delay.getNanos() / 1e6;
        String reason = findDetail(error, ErrorInfo.getDefaultInstance()).getReason();
        tell("limited", Map.of("reason", reason, "retryDelayMs", delayMs));
        Thread.sleep((long) Math.ceil(delayMs));
        admin.whoAmI(WhoAmIRequest.getDefaultInstance());
        tell("allowed again", Map.of());
        return;
      }
    }
  }

  /**
   * Hands over a user's notifications from now on: each once and in order, over as many connections as it takes, until
   * the handler answers false.
   */
  static void follow(StreamServiceBlockingStub streams, Predicate<NotificationArrived> handle)
      throws InterruptedException {
    String cursor = "";
    for (;;) {
      long delayMs = ThreadLocalRandom.current().nextLong(1000); // so that not all come back at once
      // Cancelling the context is how a blocking stream is left.
      Context.CancellableContext context = Context.current().withCancellation();
      Context before = context.attach();
      try {
        Iterator<SubscribeResponse> events =
            streams.subscribe(SubscribeRequest.newBuilder().setCursor(cursor).build());
        while (events.hasNext()) {
          SubscribeResponse response = events.next();
          switch (response.getEventCase()) {
            case NOTIFICATION -> {
              cursor = response.getNotification().getCursor();
              if (!handle.test(response.getNotification())) {
                return;
              }
            }
            case CAUGHT_UP -> {
              cursor = response.getCaughtUp().getCursor();
              tell("caught up", Map.of());
            }
            case HEARTBEAT -> cursor = response.getHeartbeat().getCursor();
            case RESET -> {
              cursor = response.getReset().getCursor();
              tell("reset", Map.of()); // more was missed than is replayed: read the inbox again
            }
            case RECONNECT -> {
              cursor = response.getReconnect().getCursor();
              delayMs = response.getReconnect().getAfter().getSeconds() * 1000
                  + response.getReconnect().getAfter().getNanos() / 1_000_000;
            }
            default -> {} // more kinds will come
          }
        }
      } catch (StatusRuntimeException error) {
        if (!RETRYABLE.contains(error.getStatus().getCode())) {
          throw error;
        }
        tell("cut", Map.of("code", error.getStatus().getCode().name()));
      } finally {
        context.detach(before);
        context.cancel(null);
      }
      Thread.sleep(delayMs);
    }
  }

  static ClientInterceptor bearer(String credential) {
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + credential);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  /** The detail of this kind in an error; the empty one that names the kind where it has none. */
  @SuppressWarnings("unchecked")
  static <T extends Message> T findDetail(StatusRuntimeException error, T empty) {
    var status = StatusProto.fromThrowable(error);
    try {
      for (Any detail : status == null ? List.<Any>of() : status.getDetailsList()) {
        if (detail.is(empty.getClass())) {
          return (T) detail.unpack(empty.getClass());
        }
      }
    } catch (InvalidProtocolBufferException broken) {
      throw new IllegalStateException(broken);
    }
    return empty;
  }

  static void tell(String fact, Map<String, ?> what) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("fact", fact);
    line.putAll(what);
    System.out.println(new Gson().toJson(line));
  }

  private Client() {}
}

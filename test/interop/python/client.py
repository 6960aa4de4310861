"""A client of Posthorn in Python, with nothing but grpcio and code generated from proto/ (build.sh).

    ./build.sh && POSTHORN_API_KEY=... PYTHONPATH=gen venv/bin/python client.py

Tells what it learns in one JSON object a line, and ends when ada is sent "The end".
"""

import itertools
import json
import os
import random
import time
import uuid
from collections.abc import Iterator

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status
from posthorn.v1.admin_service_pb2 import CreateUserTokenRequest, WhoAmIRequest
from posthorn.v1.admin_service_pb2_grpc import AdminServiceStub
from posthorn.v1.notification_pb2 import Content
from posthorn.v1.send_service_pb2 import (
    ListNotificationsRequest,
    NotificationFilter,
    Recipients,
    SendBatchRequest,
    SendRequest,
)
from posthorn.v1.send_service_pb2_grpc import SendServiceStub
from posthorn.v1.stream_service_pb2 import NotificationArrived, SubscribeRequest
from posthorn.v1.stream_service_pb2_grpc import StreamServiceStub

ADDRESS = os.environ.get("POSTHORN_ADDRESS", "127.0.0.1:50051")
API_KEY = os.environ["POSTHORN_API_KEY"]
USER = os.environ.get("POSTHORN_USER", "ada")

# A connection that died without a word is noticed after 30 s; without this, never.
CHANNEL_OPTIONS = [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000)]

# After these the same call may succeed: repeat it, a send with the same idempotency key.
RETRYABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}


def main() -> None:
    with grpc.insecure_channel(ADDRESS, options=CHANNEL_OPTIONS) as channel:
        check_health(channel)
        sender = SendServiceStub(channel)
        send_twice(sender)
        send_something_wrong(sender)
        list_all(sender)
        admin = AdminServiceStub(channel)
        # Tokens are made where the API key is, in your service; the user's device gets only the token.
        token = admin.CreateUserToken(CreateUserTokenRequest(user_id=USER), metadata=bearer(API_KEY), timeout=10).token
        call_until_limited(admin)
        for arrived in follow(StreamServiceStub(channel), token):
            title = arrived.entry.content.title
            tell("arrived", sequence=arrived.entry.sequence, title=title, replayed=arrived.replayed)
            if title == "The end":
                break


def check_health(channel: grpc.Channel) -> None:
    request = HealthCheckRequest(service="posthorn.v1.SendService")
    response = HealthStub(channel).Check(request, timeout=10)
    tell("health", status=HealthCheckResponse.ServingStatus.Name(response.status))


def send_twice(sender: SendServiceStub) -> None:
    request = SendRequest(
        to=Recipients(user_ids=[USER]),
        content=Content(title="Your order is on its way", url="/orders/42"),
        idempotency_key=f"order-42-shipped-{USER}",  # the same for every try, whatever becomes of it
    )
    for fact in ("sent", "repeated"):
        response = sender.Send(request, metadata=bearer(API_KEY), timeout=10)
        tell(fact, ids=[result.notification_id for result in response.results])


def send_something_wrong(sender: SendServiceStub) -> None:
    request = SendRequest(to=Recipients(user_ids=["ada lovelace"]), content=Content(title="Hello"))
    try:
        sender.Send(request, metadata=bearer(API_KEY), timeout=10)
    except grpc.RpcError as error:
        violations = find_detail(error, BadRequest).field_violations
        tell(
            "refused",
            code=error.code().name,
            reason=find_detail(error, ErrorInfo).reason,
            fields={violation.field: violation.description for violation in violations},
        )


def list_all(sender: SendServiceStub) -> None:
    user = f"reader-{uuid.uuid4()}"
    item = SendRequest(to=Recipients(user_ids=[user]), content=Content(title="One of many"))
    batch = sender.SendBatch(SendBatchRequest(items=[item] * 25), metadata=bearer(API_KEY), timeout=10)
    sent = [result.response.results[0].notification_id for result in batch.results]
    listed: list[str] = []
    request = ListNotificationsRequest(page_size=10, filter=NotificationFilter(user_id=user))
    for page in itertools.count(1):
        response = sender.ListNotifications(request, metadata=bearer(API_KEY), timeout=10)
        listed += [notification.id for notification in response.notifications]
        request.page_token = response.next_page_token
        if not response.next_page_token:
            tell("listed", pages=page, sent=sent, ids=listed)
            return


def call_until_limited(admin: AdminServiceStub) -> None:
    while True:
        try:
            admin.WhoAmI(WhoAmIRequest(), metadata=bearer(API_KEY), timeout=10)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            delay = find_detail(error, RetryInfo).retry_delay.ToTimedelta().total_seconds()
            tell("limited", reason=find_detail(error, ErrorInfo).reason, retryDelayMs=delay * 1000)
            time.sleep(delay)
            admin.WhoAmI(WhoAmIRequest(), metadata=bearer(API_KEY), timeout=10)
            tell("allowed again")
            return


def follow(streams: StreamServiceStub, token: str) -> Iterator[NotificationArrived]:
    """A user's notifications from now on: each once and in order, over as many connections as it takes."""
    cursor = ""
    while True:
        delay = random.random()  # seconds, so that not all come back at once
        call = streams.Subscribe(SubscribeRequest(cursor=cursor), metadata=bearer(token))
        try:
            for response in call:
                kind = response.WhichOneof("event")
                event = getattr(response, kind) if kind else None  # more kinds will come
                cursor = getattr(event, "cursor", "") or cursor
                if kind == "notification":
                    yield event
                elif kind == "caught_up":
                    tell("caught up")
                elif kind == "reset":
                    tell("reset")  # more was missed than is replayed: read the inbox again
                elif kind == "reconnect":
                    delay = event.after.ToTimedelta().total_seconds()
        except grpc.RpcError as error:
            if error.code() not in RETRYABLE:
                raise
            tell("cut", code=error.code().name)
        finally:
            call.cancel()
        time.sleep(delay)


def bearer(credential: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {credential}")]


def find_detail(error: grpc.RpcError, kind):
    """The detail of this kind in an error; an empty one where it has none."""
    found = kind()
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Unpack(found):
            break
    return found


def tell(fact: str, **what) -> None:
    print(json.dumps({"fact": fact, **what}), flush=True)


if __name__ == "__main__":
    main()

"""A service of another team: sends messages of its own proto package, and reads them back with its own class.

    POSTHORN_API_KEY=... PYTHONPATH=gen venv/bin/python typed.py

Its class is made by the stock compiler from acme/orders/v1/shipped.proto. Tells what it learns in one JSON object a line.
"""

import json
import os

import grpc
from acme.orders.v1.shipped_pb2 import OrderShipped
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status
from posthorn.v1.inbox_service_pb2 import ListEntriesRequest
from posthorn.v1.inbox_service_pb2_grpc import InboxServiceStub
from posthorn.v1.notification_pb2 import Content
from posthorn.v1.send_service_pb2 import Recipients, SendRequest
from posthorn.v1.send_service_pb2_grpc import SendServiceStub

METADATA = [("authorization", f"Bearer {os.environ['POSTHORN_API_KEY']}")]
USER = os.environ["POSTHORN_USER"]


def send(sender: SendServiceStub, order: OrderShipped) -> None:
    content = Content(title="On its way")
    content.payload.Pack(order)
    request = SendRequest(to=Recipients(user_ids=[USER]), type="order_shipped", content=content)
    request.wait_for_decision.FromSeconds(10)
    try:
        sender.Send(request, metadata=METADATA, timeout=20)
        print(json.dumps({"sent": order.order_id}))
    except grpc.RpcError as error:
        fields = {}
        for detail in rpc_status.from_call(error).details:
            bad = BadRequest()
            if detail.Unpack(bad):
                fields = {each.field: each.description for each in bad.field_violations}
        print(json.dumps({"refused": fields}))


with grpc.insecure_channel(os.environ["POSTHORN_ADDRESS"]) as channel:
    sender = SendServiceStub(channel)
    send(sender, OrderShipped(order_id="A-17", parcels=2))
    send(sender, OrderShipped(order_id="A"))
    entries = InboxServiceStub(channel).ListEntries(
        ListEntriesRequest(user_id=USER), metadata=METADATA, timeout=20
    ).entries
    typed = entries[0].content.typed
    order = OrderShipped.FromString(typed.value)
    print(json.dumps({"read": order.order_id, "parcels": order.parcels, "version": typed.version, "all": len(entries)}))

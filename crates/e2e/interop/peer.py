#!/usr/bin/env python3
"""The official Python client of Apache RocketMQ, driven by a test.

    peer.py descriptors                      its protocol, as a FileDescriptorSet in base64
    peer.py ENDPOINTS COMMAND '{"..": ..}'   one of the commands below

Writes one JSON object per line. The client logs to $HOME/logs/rocketmq_python.
"""
import base64
import json
import sys
import threading
import time

from rocketmq import (ClientConfiguration, ConsumeResult, Credentials, FilterExpression, Message,
                      MessageListener, Producer, PushConsumer, SimpleConsumer, TransactionChecker,
                      TransactionResolution)
from rocketmq.grpc_protocol import FilterType, definition_pb2, service_pb2

# How long a receive hides a message, in seconds; the server's shortest is 10.
INVISIBLE = 15


def say(**fields):
    print(json.dumps(fields), flush=True)


def configuration(endpoints):
    return ClientConfiguration(endpoints, Credentials())


def to_send(wanted):
    message = Message()
    message.topic = wanted["topic"]
    message.body = base64.b64decode(wanted["body"])
    if "tag" in wanted:
        message.tag = wanted["tag"]
    for key in wanted.get("keys", []):
        message.keys = key
    if "group" in wanted:
        message.message_group = wanted["group"]
    if "delay" in wanted:
        message.delivery_timestamp = int(time.time()) + wanted["delay"]
    for name, value in wanted.get("properties", {}).items():
        message.add_property(name, value)
    return message


def received(message):
    return {
        "id": message.message_id,
        "body": base64.b64encode(message.body).decode(),
        "tag": message.tag,
        "keys": sorted(message.keys),
        "group": message.message_group,
        "properties": dict(message.properties),
        "attempt": message.delivery_attempt,
        "corrupted": message.corrupted,
    }


def subscription(wanted):
    kind = FilterType.SQL if wanted.get("sql") else FilterType.TAG
    return {wanted["topic"]: FilterExpression(wanted.get("filter", "*"), kind)}


def send(endpoints, wanted):
    """Sends `messages` one after the other; with `recall`, recalls each at once."""
    messages = wanted["messages"]
    producer = Producer(configuration(endpoints), [m["topic"] for m in messages])
    producer.startup()
    for each in messages:
        receipt = producer.send(to_send(each))
        say(sent=receipt.message_id)
        if wanted.get("recall"):
            say(recalled=producer.recall_message(each["topic"], receipt.recall_handle))
    producer.shutdown()


def transaction(endpoints, wanted):
    """Sends `message` as a half message; ends it as `end` says, or leaves it to the checker."""
    checked = threading.Event()

    class Commit(TransactionChecker):
        def check(self, message):
            say(checked=message.message_id)
            checked.set()
            return TransactionResolution.COMMIT

    producer = Producer(configuration(endpoints), [wanted["message"]["topic"]], Commit())
    producer.startup()
    begun = producer.begin_transaction()
    receipt = producer.send(to_send(wanted["message"]), begun)
    say(sent=receipt.message_id)
    if wanted["end"] == "commit":
        begun.commit()
    elif wanted["end"] == "rollback":
        begun.rollback()
    else:
        checked.wait(wanted["seconds"])
        # The answer is sent by another thread.
        time.sleep(2)
    producer.shutdown()


def simple(endpoints, wanted):
    """Receives and acknowledges `count` messages, for `seconds` at most."""
    consumer = SimpleConsumer(configuration(endpoints), wanted["group"], subscription(wanted), 5)
    consumer.startup()
    say(ready=True)
    deadline, count, told = time.time() + wanted["seconds"], 0, None
    while count < wanted["count"] and time.time() < deadline:
        try:
            for message in consumer.receive(16, INVISIBLE) or []:
                consumer.ack(message)
                say(received=received(message))
                count += 1
        except Exception as error:  # the long poll of another queue goes on
            if str(error) != told:
                told = str(error)
                say(error=told)
            time.sleep(0.5)
    consumer.shutdown()


def push(endpoints, wanted):
    """Consumes `count` messages; with `fail_first`, each fails at its first delivery."""
    done, lock, seen, left = threading.Event(), threading.Lock(), set(), [wanted["count"]]

    class Listener(MessageListener):
        def consume(self, message):
            with lock:
                if wanted.get("fail_first") and message.message_id not in seen:
                    seen.add(message.message_id)
                    say(failed=received(message))
                    return ConsumeResult.FAILURE
                say(received=received(message))
                left[0] -= 1
                if left[0] == 0:
                    done.set()
            return ConsumeResult.SUCCESS

    consumer = PushConsumer(
        configuration(endpoints), wanted["group"], Listener(), subscription(wanted))
    consumer.startup()
    say(ready=True)
    done.wait(wanted["seconds"])
    # Acknowledgements are sent by other threads.
    time.sleep(2)
    consumer.shutdown()


def descriptors():
    def closure(file, found):
        for dependency in file.dependencies:
            closure(dependency, found)
        found[file.name] = file

    from google.protobuf import descriptor_pb2
    files = {}
    for module in (definition_pb2, service_pb2):
        closure(module.DESCRIPTOR, files)
    answer = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(answer.file.add())
    print(base64.b64encode(answer.SerializeToString()).decode())


if __name__ == "__main__":
    if sys.argv[1:] == ["descriptors"]:
        descriptors()
    else:
        endpoints, command, wanted = sys.argv[1:]
        commands = {f.__name__: f for f in (send, transaction, simple, push)}
        commands[command](endpoints, json.loads(wanted))

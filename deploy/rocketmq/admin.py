#!/usr/bin/env python3
"""Creates topics and groups on a RocketMQ broker with single frames of its remoting protocol.

mqadmin does the same, but pays 3-5 s of JVM start for each call; this takes milliseconds.

  admin.py [--broker HOST:PORT] topic NAME[:TYPE][:queues=N] ...
      TYPE: NORMAL (default) FIFO DELAY TRANSACTION MIXED PRIORITY LITE
  admin.py [--broker HOST:PORT] group NAME[:orderly][:retry=N][:backoff=1s-10s] ...
      retry:   retryMaxTimes; a message is handed out at most retry+1 times (default 16)
      backoff: exponential (x2) from the first to the second value; units ms, s, m, h
  admin.py [--namesrv HOST:PORT] [--wait SECONDS] route NAME ...
      waits until the name server knows a broker for every topic (a TCP connect is not readiness)

Exit status: 0 all done, 1 otherwise, with the broker's remark on stderr.
"""
import argparse
import json
import os
import re
import socket
import struct
import sys
import time

TYPES = ("NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED", "PRIORITY", "LITE")
NAME = re.compile(r"^[%|a-zA-Z0-9_-]+$")  # no dots: the server refuses them
CREATE_TOPIC, ROUTE, CREATE_GROUP = 17, 105, 200
MAX_FRAME = 16 << 20
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class Failed(Exception):
    pass


class BadUsage(Exception):
    """A mistake in a NAME:OPTION, found before anything is sent."""


def address(text):
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"not HOST:PORT: {text!r}")
    return host.strip("[]"), int(port)


def read(sock, n, deadline):
    data = b""
    while len(data) < n:
        # the bound is on the whole answer, not on each packet of it
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        part = sock.recv(n - len(data))
        if not part:
            raise ConnectionError("the server closed the connection")
        data += part
    return data


def call(addr, code, fields, body=b"", timeout=5.0):
    """One request, one answer: u32 length | u32 header length (top byte 0 = JSON) | header | body."""
    head = json.dumps({"code": code, "language": "OTHER", "version": 500, "opaque": 1, "flag": 0,
                       "extFields": fields}).encode()
    deadline = time.monotonic() + timeout
    where = f"{addr[0]}:{addr[1]}"
    try:
        with socket.create_connection(addr, timeout=timeout) as sock:
            sock.sendall(struct.pack(">II", 4 + len(head) + len(body), len(head)) + head + body)
            (total,) = struct.unpack(">I", read(sock, 4, deadline))
            if not 4 <= total <= MAX_FRAME:
                raise Failed(f"{where}: not a RocketMQ answer (length {total})")
            data = read(sock, total, deadline)
    except OSError as e:
        raise Failed(f"{where}: {e}") from e
    (size,) = struct.unpack(">I", data[:4])
    if size >> 24:
        raise Failed(f"{where}: the answer's header is not JSON (type {size >> 24})")
    try:
        answer = json.loads(data[4:4 + size])
        if answer["code"] != 0:
            raise Failed(f"{where}: code {answer['code']}: {answer.get('remark') or 'no remark'}")
    except (ValueError, KeyError, TypeError) as e:
        raise Failed(f"{where}: not a RocketMQ answer") from e
    return data[4 + size:]


def millis(text):
    m = re.fullmatch(r"(\d+)(ms|s|m|h)", text)
    if not m:
        raise BadUsage(f"not a duration: {text!r} (10ms, 1s, 2m, 1h)")
    return int(m[1]) * UNITS[m[2]]


def number(text, low, high):
    if not text.isdigit() or not low <= int(text) <= high:
        raise BadUsage(f"not a number from {low} to {high}: {text!r}")
    return int(text)


def named(spec):
    name, *options = spec.split(":")
    if not NAME.match(name):
        raise BadUsage(f"bad name {name!r}: only letters, digits and _ - % |")
    return name, options


def topic(spec):
    name, options = named(spec)
    kind, queues = "NORMAL", 4
    for o in options:
        if o.startswith("queues="):
            queues = number(o[7:], 1, 1024)
        elif o.upper() in TYPES:
            kind = o.upper()
        else:
            raise BadUsage(f"{spec}: unknown type or option {o!r}; types: {' '.join(TYPES)}")
    fields = {"topic": name, "defaultTopic": "TBW102", "readQueueNums": str(queues), "writeQueueNums": str(queues),
              "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
              "attributes": f"+message.type={kind}"}
    return f"topic {name}: {kind}, {queues} queues", CREATE_TOPIC, fields, b""


def group(spec):
    name, options = named(spec)
    conf = {"groupName": name, "consumeEnable": True, "consumeMessageOrderly": False, "retryMaxTimes": 16}
    note = ""
    for o in options:
        if o == "orderly":
            conf["consumeMessageOrderly"] = True
            note += ", orderly"
        elif o.startswith("retry="):
            conf["retryMaxTimes"] = number(o[6:], 0, 1000)
        elif o.startswith("backoff="):
            first, dash, last = o[8:].partition("-")
            a, b = millis(first), millis(last if dash else first)
            if not 0 < a <= b:
                raise BadUsage(f"{spec}: back-off must grow from more than 0: {o!r}")
            conf["groupRetryPolicy"] = {"type": "EXPONENTIAL",
                                        "exponentialRetryPolicy": {"initial": a, "max": b, "multiplier": 2}}
            note += f", back-off {a} to {b} ms"
        else:
            raise BadUsage(f"{spec}: unknown option {o!r}; options: orderly retry=N backoff=1s-10s")
    return f"group {name}: retry {conf['retryMaxTimes']}{note}", CREATE_GROUP, {}, json.dumps(conf).encode()


def wait_route(addr, name, deadline):
    while True:
        try:
            # the route's JSON has bare numbers as keys, so no JSON parser: a known broker names its address
            body = call(addr, ROUTE, {"topic": name}, timeout=min(5.0, max(deadline - time.monotonic(), 1.0)))
            if b'"brokerAddrs"' in body:
                return
            why = f"{addr[0]}:{addr[1]}: the route of {name} has no broker"
        except Failed as e:
            why = str(e)
        if time.monotonic() >= deadline:
            raise Failed(why)
        time.sleep(0.2)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    env = os.environ.get
    p.add_argument("--broker", type=address, default="127.0.0.1:" + env("ROCKETMQ_BROKER_PORT", "10911"), metavar="HOST:PORT")
    p.add_argument("--namesrv", type=address, default="127.0.0.1:" + env("ROCKETMQ_NAMESRV_PORT", "9876"), metavar="HOST:PORT")
    p.add_argument("--timeout", type=float, default=5.0, help="seconds for one request (5)")
    p.add_argument("--wait", type=float, default=30.0, help="seconds for all routes together (30)")
    p.add_argument("--quiet", action="store_true")
    p.add_argument("what", choices=("topic", "group", "route"))
    p.add_argument("specs", nargs="+", metavar="NAME[:OPTION]...")
    a = p.parse_args()

    # every spec is checked before the first is sent: a typing mistake changes nothing
    try:
        todo = [{"topic": topic, "group": group, "route": lambda s: (f"route {named(s)[0]}",)}[a.what](s) for s in a.specs]
    except BadUsage as e:
        print(f"admin.py: {e}", file=sys.stderr)
        return 1
    deadline = time.monotonic() + a.wait
    bad = 0
    for spec, (label, *request) in zip(a.specs, todo):
        try:
            if a.what == "route":
                wait_route(a.namesrv, spec.split(":")[0], deadline)
            else:
                call(a.broker, *request, timeout=a.timeout)
            if not a.quiet:
                print(label)
        except Failed as e:
            bad = 1
            print(f"admin.py: {label}: {e}", file=sys.stderr)
    return bad


if __name__ == "__main__":
    sys.exit(main())

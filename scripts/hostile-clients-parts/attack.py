"""One process of attackers. Usage: attack.py KIND PORT NUMBER COUNT (NUMBER tells processes of one attack apart, COUNT is its connections).

It prints "ready" when all its connections stand and the attack runs, and goes on until it is ended. What the broker closes is opened anew. Churn
then prints ten times a second how many connections a second it has made since.
Connections come from 127.0.0.2 and up.
"""

import selectors
import socket
import struct
import sys
import time

import wire

BIG_PARTITIONS = 8
ADDRESSES = 40


class Attackers:
    def __init__(self, port, number, count):
        self.port, self.number, self.count = port, number, count
        self.opened = 0

    def open(self, receive_bytes=None):
        """A connection that does not block; None: it was refused."""
        self.opened += 1
        source = f"127.0.0.{2 + (self.number * 7 + self.opened) % ADDRESSES}"
        connection = socket.socket()
        try:
            if receive_bytes:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            connection.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen when it connects
            connection.bind((source, 0))
            connection.settimeout(10)
            connection.connect(("127.0.0.1", self.port))
        except OSError:
            connection.close()
            return None
        connection.setblocking(False)
        return connection

    def open_all(self, **how):
        return [self.open(**how) for _ in range(self.count)]


def push(connection, data):
    """Sends what is taken at once; the rest, or None when the connection is gone."""
    try:
        while data:
            data = data[connection.send(data):]
        return data
    except BlockingIOError:
        return data
    except OSError:
        return None


def pull(connection, most=1 << 16):
    """Whether the connection is still there; what has come is thrown away."""
    try:
        return bool(connection.recv(most))
    except BlockingIOError:
        return True
    except OSError:
        return False


def ready():
    print("ready", flush=True)


def idle(all_):
    held = all_.open_all()
    assert sum(one is not None for one in held) >= all_.count * 9 // 10, "most stand"
    ready()
    while True:
        time.sleep(60)


def dribble(all_):
    held = all_.open_all()
    sent = [0] * all_.count
    frame = struct.pack(">i", 50_000) + bytes(50_000)
    ready()
    while True:
        began = time.monotonic()
        for at, connection in enumerate(held):
            if connection is None or push(connection, frame[sent[at]:sent[at] + 1]) is None:
                held[at], sent[at] = all_.open(), 0
            else:
                sent[at] += 1
        time.sleep(max(0.0, 1 - (time.monotonic() - began)))


def keep_sending(all_, request, pause, **how):
    """Each sends `request` again and again and reads nothing."""
    held, left = all_.open_all(**how), [b""] * all_.count
    is_told = False
    while True:
        for at, connection in enumerate(held):
            if connection is None:
                held[at], left[at] = all_.open(**how), b""
                continue
            left[at] = push(connection, left[at] or request)
            if left[at] is None:
                connection.close()
                held[at], left[at] = None, b""
        if not is_told:
            ready()
            is_told = True
        time.sleep(pause)


def unread(all_):
    keep_sending(all_, wire.fetch("big", {all_.number % BIG_PARTITIONS: 0}, 0, 1, 50 << 20) * 20, 0.05, receive_bytes=4096)


def ask_again(all_, request, most, pause):
    """Each sends `request` again and again, and reads at most `most` bytes at a time."""
    held, left = all_.open_all(), [b""] * all_.count
    ready()
    while True:
        for at, connection in enumerate(held):
            if connection is None or not pull(connection, most):
                held[at], left[at] = all_.open(), b""
                continue
            left[at] = push(connection, left[at] or request)
            if left[at] is None:
                held[at], left[at] = None, b""
        time.sleep(pause)


def answers(all_):
    """Asks for all that there is, as one answer, and takes it slowly."""
    request = wire.fetch("big", {partition: 0 for partition in range(BIG_PARTITIONS)}, 0, 1, wire.FOREVER) + wire.metadata()
    ask_again(all_, request, 16 << 10, 0.01)


def frames(all_):
    """Requests of 100 MiB, whole: an empty Produce with nonsense behind it."""
    length = 100 << 20
    header = struct.pack(">hhi", wire.PRODUCE, 3, 1) + wire.text("hostile") + struct.pack(">hhii", -1, -1, 1000, 0)
    part = bytes(256 << 10)
    held = all_.open_all()
    sent = [0] * all_.count
    ready()
    while True:
        for at, connection in enumerate(held):
            if connection is None or not pull(connection):
                held[at], sent[at] = all_.open(), 0
                continue
            data = struct.pack(">i", length) + header + part if sent[at] == 0 else part[:length + 4 - sent[at]]
            rest = push(connection, data)
            if rest is None:
                held[at], sent[at] = None, 0
                continue
            sent[at] += len(data) - len(rest)
        time.sleep(0.001)


def flood(all_):
    """Small requests of all kinds, as many as are taken, whose answers are taken as they come."""
    records = wire.batch(b"x" * 50)
    mix = [wire.api_versions(), wire.metadata(), wire.produce("flood", 0, records, 1), wire.fetch("flood", {0: 0}, 0, 1, 1000)]
    request = b"".join(mix) * 16
    selector = selectors.DefaultSelector()
    left = {}

    def add():
        connection = all_.open()
        if connection:
            selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            left[connection] = b""

    for _ in range(all_.count):
        add()
    ready()
    while True:
        for key, events in selector.select(1):
            connection = key.fileobj
            rest = left[connection]
            if events & selectors.EVENT_WRITE:
                rest = push(connection, rest or request)
            if rest is None or (events & selectors.EVENT_READ and not pull(connection)):
                selector.unregister(connection)
                connection.close()
                left.pop(connection)
                add()
            else:
                left[connection] = rest


def sessions(all_):
    """Sessions of many partitions, one after the other, none of which is used again."""
    request = wire.new_session("wide", 500)
    ask_again(all_, request, 1 << 20, 0.002)


def forever(all_):
    """Fetches that want more than ever comes, half of them from where the good client writes."""
    held = all_.open_all()
    for at, connection in enumerate(held):
        if connection:
            topic = "good" if at % 2 else "still"
            push(connection, wire.fetch(topic, {0: 0 if at % 4 else 1}, wire.FOREVER, wire.FOREVER, wire.FOREVER))
    ready()
    while True:
        time.sleep(60)


def churn(all_):
    """COUNT connections a second: one request each, then an end of one or the other kind. What is late is made up for."""
    ready()
    began, tried, made, told = time.monotonic(), 0, 0, 0.0
    while True:
        while tried < (time.monotonic() - began) * all_.count:
            tried += 1
            made += churned(all_.open(), tried % 2 == 0)
        if (passed := time.monotonic() - began) - told >= 0.1:
            told = passed
            print(f"{made / passed:.0f}", flush=True)
        time.sleep(0.001)


def churned(connection, is_reset):
    """Whether the connection stood and took its request."""
    if connection is None:
        return False
    connection.settimeout(5)
    try:
        connection.sendall(wire.api_versions())
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return True
        return bool(connection.recv(1 << 16))
    except OSError:
        return False
    finally:
        connection.close()


KINDS = {one.__name__: one for one in [idle, dribble, unread, answers, frames, flood, sessions, forever, churn]}

if __name__ == "__main__":
    kind, port, number, count = sys.argv[1], *map(int, sys.argv[2:])
    KINDS[kind](Attackers(port, number, count))

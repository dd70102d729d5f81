"""The little of Kafka's protocol that the suite speaks: classic versions, by hand, so that nothing stands between it and the broker.

Knows nothing of attacks.
"""

import socket
import struct

PRODUCE, FETCH, METADATA, API_VERSIONS, CREATE_TOPICS = 0, 1, 3, 18, 19
FOREVER = 2**31 - 1


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def request(key, version, body, correlation=1):
    header = struct.pack(">hhi", key, version, correlation) + text("hostile")
    return struct.pack(">i", len(header) + len(body)) + header + body


def api_versions():
    return request(API_VERSIONS, 0, b"")


def metadata():
    return request(METADATA, 1, struct.pack(">i", -1))


def create_topic(name, partitions):
    topic = text(name) + struct.pack(">ihii", partitions, 1, 0, 0)
    return request(CREATE_TOPICS, 2, struct.pack(">i", 1) + topic + struct.pack(">ib", 30_000, 0))


def produce(topic, partition, batch, acks=-1):
    body = struct.pack(">hhii", -1, acks, 30_000, 1) + text(topic) + struct.pack(">iii", 1, partition, len(batch)) + batch
    return request(PRODUCE, 3, body)


def fetch(topic, offsets, wait_ms, min_bytes, max_bytes):
    """`offsets`: by partition."""
    parts = b"".join(struct.pack(">iqi", partition, offset, max_bytes) for partition, offset in offsets.items())
    body = struct.pack(">iiiibi", -1, wait_ms, min_bytes, max_bytes, 0, 1) + text(topic) + struct.pack(">i", len(offsets)) + parts
    return request(FETCH, 4, body)


def new_session(topic, partitions):
    """A fetch that opens a session and does not wait."""
    parts = b"".join(struct.pack(">iqqi", partition, 0, -1, 1) for partition in range(partitions))
    body = struct.pack(">iiiibiii", -1, 0, 0, 1, 0, 0, 0, 1) + text(topic) + struct.pack(">i", partitions) + parts + struct.pack(">i", 0)
    return request(FETCH, 7, body)


def crc32c(data):
    table = crc32c.table
    if table is None:
        table = []
        for byte in range(256):
            for _ in range(8):
                byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
            table.append(byte)
        crc32c.table = table
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


crc32c.table = None


def varint(value):
    raw, out = (value << 1) ^ (value >> 63), bytearray()
    while raw >= 0x80:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


def batch(value):
    """One record."""
    record = b"\0" + varint(0) + varint(0) + varint(-1) + varint(len(value)) + value + varint(0)
    records = varint(len(record)) + record
    stamp = 1_700_000_000_000
    checked = struct.pack(">hiqqqhii", 0, 0, stamp, stamp, -1, -1, -1, 1) + records
    return struct.pack(">qiibI", 0, 4 + 1 + 4 + len(checked), -1, 2, crc32c(checked)) + checked


class Closed(Exception):
    """The broker has closed the connection."""


class Connection:
    """Asks one thing after the other."""

    def __init__(self, port, source=None, timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout, source_address=(source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def take(self, count):
        parts = bytearray()
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise Closed
            parts += part
        return parts

    def ask(self, frame):
        """The body of the answer."""
        self.socket.sendall(frame)
        return self.take(struct.unpack(">i", self.take(4))[0])[4:]

    def create_topic(self, name, partitions):
        body = self.ask(create_topic(name, partitions))
        code = struct.unpack_from(">h", body, 4 + 4 + 2 + len(name))[0]
        assert code == 0, f"creating topic {name}: error {code}"

    def produce(self, topic, partition, records):
        """The offset of the first record."""
        body = self.ask(produce(topic, partition, records))
        _, code, offset = struct.unpack_from(">ihq", body, 4 + 2 + len(topic) + 4)
        assert code == 0, f"produce: error {code}"
        return offset

    def fetch(self, topic, partition, offset):
        """Bytes of records."""
        body = self.ask(fetch(topic, {partition: offset}, 10_000, 1, 1 << 20))
        at = 4 + 4 + 2 + len(topic) + 4
        _, code = struct.unpack_from(">ih", body, at)
        assert code == 0, f"fetch: error {code}"
        at += 4 + 2 + 8 + 8
        aborted = struct.unpack_from(">i", body, at)[0]
        at += 4 + max(aborted, 0) * 16
        return bytes(body[at + 4:])

"""Reads the record batches of a topic as the broker serves them, without any client library, and judges their headers.

How it works: Fetch version 4 (the oldest any broker still serves) over a plain socket, one partition at a time from offset 0; every
batch header is parsed and its CRC-32C recomputed. This is how a check learns what a client library hides: the codec really used, the
producer id, the sequences, and whether the broker keeps bytes as they were sent.

Invariants: batches of a partition are dense (base offset = previous last offset + 1) from the log start on; a CRC never differs.
Knows nothing of records inside a batch, nor of groups.
"""

import socket
import struct
from collections import namedtuple

import crc32c

CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
HEADER = struct.Struct(">qiibIhiqqqhii")  # base offset .. record count: 61 bytes

Batch = namedtuple("Batch", "base_offset last_offset codec producer_id epoch sequence count bytes")


class WireError(Exception):
    """The broker's bytes break a rule of the protocol; the message says which."""


class Connection:
    """One connection; requests are answered in order."""

    def __init__(self, bootstrap):
        host, port = bootstrap.rsplit(":", 1)
        self.sock = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
        self.correlation = 0

    def close(self):
        self.sock.close()

    def call(self, key, version, body):
        """The body of the answer (after the version 0 response header)."""
        self.correlation += 1
        head = struct.pack(">hhih", key, version, self.correlation, 7) + b"batches"
        self.sock.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        size = struct.unpack(">i", self._exactly(4))[0]
        reply = self._exactly(size)
        if struct.unpack_from(">i", reply)[0] != self.correlation:
            raise WireError("answer carries another correlation id")
        return reply[4:]

    def _exactly(self, size):
        data = bytearray()
        while len(data) < size:
            part = self.sock.recv(min(1 << 20, size - len(data)))
            if not part:
                raise WireError("connection closed in the middle of an answer")
            data += part
        return bytes(data)


def fetch(connection, topic, partition, offset, max_bytes=8 << 20):
    """(error code, high watermark, records as bytes) of one partition."""
    name = topic.encode()
    body = struct.pack(">iiiib", -1, 100, 1, 64 << 20, 0)
    body += struct.pack(">ih", 1, len(name)) + name
    body += struct.pack(">iiqi", 1, partition, offset, max_bytes)
    reply = connection.call(1, 4, body)
    at = 4 + 4 + 2 + len(name) + 4
    _index, error, high, _stable, aborted = struct.unpack_from(">ihqqi", reply, at)
    at += 26 + max(aborted, 0) * 16
    size = struct.unpack_from(">i", reply, at)[0]
    return error, high, reply[at + 4 : at + 4 + max(size, 0)]


def parse(records):
    """The whole batches in `records`; a cut last batch is left out, as clients do."""
    batches, at = [], 0
    while len(records) - at >= HEADER.size:
        fields = HEADER.unpack_from(records, at)
        base, length, _epoch, magic, crc, attributes, last_delta = fields[:7]
        if magic != 2:
            raise WireError(f"batch at {base} has magic {magic}")
        end = at + 12 + length
        if end > len(records):
            break
        if crc32c.crc32c(records[at + 21 : end]) != crc:
            raise WireError(f"batch at {base}: CRC differs")
        producer_id, epoch, sequence, count = fields[9:13]
        if count != last_delta + 1:
            raise WireError(f"batch at {base}: {count} records but last offset delta {last_delta}")
        batches.append(Batch(base, base + last_delta, CODECS.get(attributes & 7, "?"), producer_id, epoch, sequence, count, end - at))
        at = end
    return batches


def read(bootstrap, topic, partitions):
    """{partition: [Batch]} from offset 0 to the high watermark; raises WireError when batches are not dense."""
    connection = Connection(bootstrap)
    found = {}
    try:
        for partition in range(partitions):
            offset, found[partition] = 0, []
            while True:
                error, high, records = fetch(connection, topic, partition, offset)
                if error:
                    raise WireError(f"{topic}-{partition}: fetch at {offset} answers error {error}")
                if offset >= high:
                    break
                batches = parse(records)
                if not batches:
                    raise WireError(f"{topic}-{partition}: nothing at {offset} below the high watermark {high}")
                for batch in batches:
                    if batch.last_offset < offset:
                        continue
                    if batch.base_offset != offset:
                        raise WireError(f"{topic}-{partition}: batch at {batch.base_offset} where {offset} is next")
                    found[partition].append(batch)
                    offset = batch.last_offset + 1
    finally:
        connection.close()
    return found

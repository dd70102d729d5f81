"""What a producer of the crash loop sends, and the files in which the processes note what the broker told them.

A record's key and value follow from (producer, sequence) alone, so that the checker knows every byte. The value begins with both
numbers and ends with a CRC-32 of what is before it. Notes are fixed-size rows, appended with one write each, so that a
reader of a growing file sees whole rows.
"""

import os
import random
import struct
import zlib
from collections import namedtuple

TOPICS = {"crash-a": 1, "crash-b": 3, "crash-c": 8, "crash-short": 1, "crash-trim": 2}
NAMES = list(TOPICS)
# What is deleted below a log start that moves: by retention, which leaves RETAINED bytes, and by DeleteRecords.
RETAINED = 1 << 20
SHORT, TRIMMED = "crash-short", "crash-trim"
SETTINGS = {SHORT: {"segment.bytes": str(1 << 20), "retention.bytes": str(RETAINED), "retention.ms": "-1"}}
# Topics that are made, filled with CHURN_RECORDS by CHURNER, deleted, and made again by the same name. Generation N is of name N % CHURN_NAMES.
CHURN_NAMES, CHURN_RECORDS, CHURNER = 12, 10, 200
HEAD = struct.Struct(">IQ")

# What a producer does: which options librdkafka gets, and how the partition is chosen.
Style = namedtuple("Style", "idempotent codec batch_bytes linger_ms by_key per_second")
STYLES = [
    Style(True, "none", 1_000_000, 5, False, 1500),
    Style(True, "lz4", 65_536, 20, True, 1500),
    Style(True, "zstd", 4_096, 1, False, 800),
    Style(True, "gzip", 16_384, 50, True, 800),
    Style(False, "none", 65_536, 5, False, 800),
    Style(False, "snappy", 1_000_000, 20, True, 800),
]

Ack = namedtuple("Ack", "topic partition offset producer sequence")
Seen = namedtuple("Seen", "topic partition offset producer sequence")
Commit = namedtuple("Commit", "group topic partition offset")
Trim = namedtuple("Trim", "partition asked low")  # low -1: asked; else the log start that was acknowledged
Churn = namedtuple("Churn", "generation state")
CREATING, MADE, FILLED, DELETING, DELETED = range(5)
PLACE = struct.Struct(">HHqIQ")  # of Ack and Seen; offset -1: acknowledged, but the broker did not say where
COMMIT = struct.Struct(">HHHq")
TRIM = struct.Struct(">Hqq")
CHURN = struct.Struct(">IH")


def key(producer, sequence):
    return f"{producer}/{sequence % 101}".encode()


def value(producer, sequence):
    rng = random.Random(producer << 40 | sequence)
    head = HEAD.pack(producer, sequence)
    body = head + rng.randbytes(20) * rng.choice((1, 2, 4, 4, 8, 40))
    return body + struct.pack(">I", zlib.crc32(body))


def churned(generation):
    """Name of the topic, and its records in order as (key, value)."""
    sequences = range(generation * CHURN_RECORDS, (generation + 1) * CHURN_RECORDS)
    return f"crash-churn-{generation % CHURN_NAMES}", [(key(CHURNER, one), value(CHURNER, one)) for one in sequences]


def identity(held):
    """(producer, sequence) of a value whose checksum holds, else None."""
    if held is None or len(held) < HEAD.size + 4 or zlib.crc32(held[:-4]) != struct.unpack(">I", held[-4:])[0]:
        return None
    return HEAD.unpack_from(held)


class Notes:
    """One process's own file of rows."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, rows):
        os.write(self.file, rows)


class Reader:
    """Reads the rows added to a file since the last call."""

    def __init__(self, path, layout, kind):
        self.path, self.layout, self.kind, self.at = path, layout, kind, 0

    def rows(self):
        if not os.path.exists(self.path):
            return []
        with open(self.path, "rb") as file:
            file.seek(self.at)
            data = file.read()
        whole = len(data) - len(data) % self.layout.size
        self.at += whole
        return [self.kind(*fields) for fields in self.layout.iter_unpack(data[:whole])]

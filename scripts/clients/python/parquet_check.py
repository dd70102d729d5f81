"""Whether pyarrow and duckdb read in a Parquet file what the JSON lines of the same export say.

Usage: parquet_check.py LINES FILE.parquet
"""

import base64
import json
import sys

import duckdb
import pyarrow.parquet

PLAIN = ["topic", "partition", "offset", "timestamp_type", "epoch", "producer_id", "producer_epoch", "transaction", "control"]


def octets(line, name):
    """A field of bytes: text, or base64 where it is none."""
    if name + "_base64" in line:
        return base64.b64decode(line[name + "_base64"])
    return None if line[name] is None else line[name].encode()


def wanted(line):
    row = {name: line.get(name) for name in PLAIN}
    row["timestamp"] = line["timestamp"]
    row["transactional"] = line.get("transactional", False)
    row["key"], row["value"] = octets(line, "key"), octets(line, "value")
    row["headers"] = [{"name": octets(header, "name"), "value": octets(header, "value")} for header in line.get("headers", [])]
    return row


def main():
    lines, path = sys.argv[1:]
    with open(lines, encoding="utf-8") as file:
        expected = [wanted(json.loads(line)) for line in file]
    table = pyarrow.parquet.read_table(path)
    time = table.schema.field("timestamp").type
    assert str(time) == "timestamp[ms, tz=UTC]", time
    at = table.schema.get_field_index("timestamp")
    found = table.set_column(at, "timestamp", table.column("timestamp").cast("int64")).to_pylist()
    assert len(found) == len(expected), f"pyarrow reads {len(found)} rows of {len(expected)}"
    for one, other in zip(expected, found):
        assert one == other, f"expected {one}, pyarrow reads {other}"
    query = "select count(*), min(\"offset\"), max(\"offset\"), sum(octet_length(value)), sum(len(headers)) from read_parquet(?)"
    counted = duckdb.execute(query, [path]).fetchone()
    values = [row["value"] for row in expected if row["value"] is not None]
    offsets = [row["offset"] for row in expected]
    own = (len(expected), min(offsets), max(offsets), sum(map(len, values)), sum(len(row["headers"]) for row in expected))
    assert counted == own, f"expected {own}, duckdb counts {counted}"
    print(f"{len(expected)} rows, the same by pyarrow and duckdb")


main()

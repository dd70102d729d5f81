"""Waits until the broker at HOST:PORT answers ApiVersions version 0, or its process ends, or the time is over.

Usage: answers.py HOST:PORT PID SECONDS. Exit 0: it answers. Exit 1: it does not, with the reason on stderr.
PID 0 means that no process is watched.
"""

import os
import socket
import struct
import sys
import time


def answers(address, timeout=1.0):
    """True when an ApiVersions version 0 request gets a reply with error code 0 and our correlation id."""
    host, port = address.rsplit(":", 1)
    client = b"readiness"
    body = struct.pack(">hhih", 18, 0, 7, len(client)) + client
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout) as sock:
            sock.sendall(struct.pack(">i", len(body)) + body)
            reply = b""
            while len(reply) < 10:
                part = sock.recv(4096)
                if not part:
                    return False
                reply += part
            return struct.unpack(">ih", reply[4:10]) == (7, 0)
    except OSError:
        return False


def main():
    address, pid, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answers(address):
            return 0
        if pid and not os.path.exists(f"/proc/{pid}"):
            print(f"process {pid} has ended", file=sys.stderr)
            return 1
        time.sleep(0.05)
    print(f"no answer within {seconds:g} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

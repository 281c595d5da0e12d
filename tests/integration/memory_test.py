"""What strangers can make a server hold: messages that are announced and never completed."""
import pathlib
import socket
import struct
import threading
import time
import unittest

import grpc
from harness import HANG_SECONDS, KEEPS_FREED_MEMORY, Server, generate, text_request

MIB = 1 << 20
MESSAGE = 4 * MIB
STREAMS = 120
LIMIT = 256 * MIB  # limits.h: max_connection_bytes
MARGIN = 160 * MIB  # of the good client's own request, and what the allocator keeps

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
ACK, END_HEADERS = 1, 4


def literal(name, value):
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class HalfSent(threading.Thread):
    """HTTP/2 by hand, for no client library sends the half of a message: STREAMS calls of Generate on one connection,
    each a message of 4 MiB less its end."""

    def __init__(self, target):
        super().__init__(daemon=True)
        host, port = target.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.sent = self.num_reset = 0
        self.initial = self.connection = 65535
        self.windows = {2 * i + 1: self.initial for i in range(STREAMS)}
        self.left = {stream: MESSAGE - 100_000 for stream in self.windows}

    def hang_up(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the server was first
        self.join()
        self.socket.close()

    def run(self):
        try:
            self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
            head = b"".join(literal(*pair) for pair in (
                (":method", "POST"), (":scheme", "http"), (":path", "/gatehouse.v1.Inference/Generate"),
                (":authority", "localhost"), ("te", "trailers"), ("content-type", "application/grpc")))
            for stream in self.windows:
                self.socket.sendall(frame(HEADERS, END_HEADERS, stream, head))
                self.send(stream, struct.pack(">BI", 0, MESSAGE))
            unread = b""
            while True:
                for stream in list(self.left):
                    self.send(stream, bytes(min(self.left[stream], self.windows[stream], self.connection, 16384)))
                self.socket.settimeout(0.02)
                try:
                    received = self.socket.recv(1 << 16)
                except socket.timeout:
                    continue
                if not received:
                    return
                unread = self.read(unread + received)
        except OSError:
            return  # the server has had enough, or the test

    def send(self, stream, payload):
        if not payload:
            return
        self.socket.settimeout(HANG_SECONDS)
        self.socket.sendall(frame(DATA, 0, stream, payload))
        self.left[stream] -= len(payload)
        self.windows[stream] -= len(payload)
        self.connection -= len(payload)
        self.sent += len(payload)

    def read(self, unread):
        while len(unread) >= 9:
            size = int.from_bytes(unread[:3], "big")
            if len(unread) < 9 + size:
                break
            self.take(unread[3], unread[4], int.from_bytes(unread[5:9], "big"), unread[9:9 + size])
            unread = unread[9 + size:]
        return unread

    def take(self, kind, flags, stream, payload):
        if kind == WINDOW:
            if stream == 0:
                self.connection += int.from_bytes(payload, "big")
            elif stream in self.windows:
                self.windows[stream] += int.from_bytes(payload, "big")
        elif kind == RESET and self.left.pop(stream, None) is not None:
            self.num_reset += 1
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at:at + 6])
                if name == 4:
                    for each in self.windows:
                        self.windows[each] += value - self.initial
                    self.initial = value
            self.socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            raise OSError("told to go away")


class MemoryTest(unittest.TestCase):
    def resident(self, server):
        status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))

    def generate_again(self, server):
        """Once the floods are gone; gRPC notices within moments."""
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            try:
                self.assertEqual(len(generate(server, text_request(max_new_tokens=4)).ids), 4)
                return
            except grpc.RpcError as error:
                self.assertIn(error.code(), (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE))
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.1)

    def test_half_sent_messages_take_a_bounded_share_and_are_forgotten(self):
        with Server() as server:
            generate(server, text_request(max_new_tokens=4))
            before = self.resident(server)
            floods = [HalfSent(server.target) for _ in range(2)]
            for flood in floods:
                flood.start()
            largest = before
            deadline = time.monotonic() + HANG_SECONDS
            while not any(flood.num_reset or not flood.is_alive() for flood in floods):
                largest = max(largest, self.resident(server))
                self.assertLess(time.monotonic(), deadline, [flood.sent for flood in floods])
                time.sleep(0.05)
            self.assertGreater(sum(flood.sent for flood in floods), LIMIT / 2)
            largest = max(largest, self.resident(server))
            if not KEEPS_FREED_MEMORY:
                self.assertLess((largest - before) / MIB, (LIMIT + MARGIN) / MIB)
            for flood in floods:
                flood.hang_up()
            self.generate_again(server)


if __name__ == "__main__":
    unittest.main(verbosity=2)

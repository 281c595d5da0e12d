"""Tenants share an overloaded server by weight; a flood of one does not keep another out. Over real gRPC."""
import pathlib
import tempfile
import threading
import unittest

import grpc
from gatehouse.v1 import inference_pb2_grpc
from harness import HANG_SECONDS, Server, generate, text_request

Code = grpc.StatusCode
TOKENS = {"heavy": "heavy-token-0123456789", "light": "light-token-0123456789"}


def bearer(tenant):
    return {"metadata": (("authorization", f"Bearer {TOKENS[tenant]}"),)}


class Load:
    """`num_streams` streams of one tenant, each begun anew when it ends; counts the tokens that come."""

    def __init__(self, server, tenant, num_streams, num_tokens):
        self.tokens, self.codes = 0, {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._tenant, self._num_tokens = tenant, num_tokens
        self._channel = grpc.insecure_channel(server.target, (("grpc.use_local_subchannel_pool", 1),))
        self._stub = inference_pb2_grpc.InferenceStub(self._channel)
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(num_streams)]
        for thread in self._threads:
            thread.start()

    def _run(self, index):
        number = 0
        while not self._stop.is_set():
            number += 1
            request = text_request(f"{self._tenant} {index} {number}", max_new_tokens=self._num_tokens)
            call = self._stub.Generate(request, timeout=HANG_SECONDS, **bearer(self._tenant))
            try:
                for event in call:
                    with self._lock:
                        self.tokens += len(event.delta.tokens)
                    if self._stop.is_set():
                        call.cancel()
            except grpc.RpcError:
                pass
            with self._lock:
                self.codes[call.code()] = self.codes.get(call.code(), 0) + 1

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(HANG_SECONDS)
        self._channel.close()


class FairnessTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tenants = pathlib.Path(folder.name) / "tenants.yaml"

    def serve(self, heavy_weight, *flags):
        self.tenants.write_text(f"""
            tenants:
              - {{name: heavy, weight: {heavy_weight}, tokens: [{TOKENS["heavy"]}]}}
              - {{name: light, weight: 1, tokens: [{TOKENS["light"]}]}}
        """)
        server = Server("--tenants", str(self.tenants), *flags)
        self.addCleanup(server.stop)
        return server

    def test_three_to_one_by_weight(self):
        """Both want more than there is: eight places, sixteen streams of each."""
        server = self.serve(3, "--max-sequences", "8")
        loads = {tenant: Load(server, tenant, 16, 24) for tenant in TOKENS}
        try:
            reached, wanted = threading.Event(), 6000

            def count():
                return {tenant: load.tokens for tenant, load in loads.items()}

            # From here: whoever came first had all the places.
            for target in (800, 800 + wanted):
                for _ in range(HANG_SECONDS * 100):
                    if sum(count().values()) >= target:
                        break
                    reached.wait(0.01)
                if target == 800:
                    before = count()
            after = count()
        finally:
            for load in loads.values():
                load.stop()
        got = {tenant: after[tenant] - before[tenant] for tenant in TOKENS}
        self.assertGreaterEqual(sum(got.values()), wanted * 0.9, got)
        self.assertAlmostEqual(got["heavy"] / got["light"], 3, delta=0.3, msg=got)
        for load in loads.values():
            self.assertLessEqual(set(load.codes), {Code.OK, Code.CANCELLED}, load.codes)

    def test_a_flood_does_not_keep_another_out(self):
        """The queue is full of one tenant's requests; the other is served at once, each time."""
        server = self.serve(1, "--max-sequences", "4", "--max-queued-requests", "16")
        flood = Load(server, "heavy", 64, 64)
        try:
            for _ in range(HANG_SECONDS * 100):
                if flood.codes.get(Code.RESOURCE_EXHAUSTED, 0) > 0:
                    break
                threading.Event().wait(0.01)
            self.assertGreater(flood.codes.get(Code.RESOURCE_EXHAUSTED, 0), 0, "the queue was never full")
            for number in range(20):
                before = flood.tokens
                answer = generate(server, text_request(f"light {number}", max_new_tokens=4), **bearer("light"))
                self.assertEqual(len(answer.ids), 4)
                # Four places: while one gets 4 tokens the others get a few each, not a queue's worth (16 * 64).
                self.assertLess(flood.tokens - before, 256, number)
        finally:
            flood.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)

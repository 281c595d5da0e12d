"""Far more streams at once than the server takes."""
import threading
import unittest

import grpc
from gatehouse.v1 import inference_pb2_grpc
from harness import HANG_SECONDS, Server, generate, text_request

Code = grpc.StatusCode


class CrowdTest(unittest.TestCase):
    STREAMS, CONNECTIONS = 10_000, 20

    def test_ten_thousand_streams_are_served_or_refused(self):
        """Every one ends, with OK or RESOURCE_EXHAUSTED, and the server serves on."""
        with Server() as server:
            codes, lock, done = {}, threading.Lock(), threading.Event()
            channels = [grpc.insecure_channel(server.target, (("grpc.use_local_subchannel_pool", 1),))
                        for _ in range(self.CONNECTIONS)]
            stubs = [inference_pb2_grpc.InferenceStub(channel) for channel in channels]
            request = text_request(max_new_tokens=1)

            def count(call):
                with lock:
                    codes[call.code()] = codes.get(call.code(), 0) + 1
                    if sum(codes.values()) == self.STREAMS:
                        done.set()

            calls = []
            for i in range(self.STREAMS):
                call = stubs[i % self.CONNECTIONS].Generate(request)
                call.add_done_callback(count)
                calls.append(call)
            for call in calls:
                try:
                    for _ in call:
                        pass
                except grpc.RpcError:
                    pass
            self.assertTrue(done.wait(HANG_SECONDS), codes)
            self.assertLessEqual(set(codes), {Code.OK, Code.RESOURCE_EXHAUSTED})
            self.assertGreater(codes[Code.OK], 0)
            self.assertEqual(len(generate(server, text_request()).ids), 16)
            for channel in channels:
                channel.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Many connections that come, ask for anything, and go in every way: nothing of them stays in the server."""
import os
import pathlib
import random
import re
import threading
import unittest

import grpc
from gatehouse.v1 import inference_pb2 as pb
from gatehouse.v1 import inference_pb2_grpc
from harness import HANG_SECONDS, KEEPS_FREED_MEMORY, Server, generate, text_request

Code = grpc.StatusCode
EXPECTED = {Code.OK, Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT}


def use_of(server):
    """Descriptors, threads and resident bytes of the server's process."""
    process = pathlib.Path(f"/proc/{server.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return len(os.listdir(process / "fd")), int(status["Threads"]), int(status["VmRSS"].split()[0]) * 1024


def one_connection(target, seed, codes, lock):
    """Some calls over a connection of its own, and then it goes, with a stream open or not."""
    rng = random.Random(seed)
    with grpc.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        for _ in range(rng.randint(1, 4)):
            request = text_request("x" * rng.choice((1, 40, 12_000)), max_new_tokens=rng.randint(1, 40))
            request.sampling.n = rng.choice((1, 1, 3))
            request.cache_salt = str(rng.randint(0, 3))
            call = stub.Generate(request, timeout=rng.choice((0.02, HANG_SECONDS)))
            num_read = rng.choice((0, 3, 10_000))
            try:
                for _, _ in zip(range(num_read), call):
                    pass
                if num_read < 10_000:
                    call.cancel()
            except grpc.RpcError:
                pass
            with lock:
                codes.add(call.code())
            stub.Tokenize(pb.TokenizeRequest(text="one two"), timeout=HANG_SECONDS)
        stub.Generate(text_request(max_new_tokens=200))  # still open when the connection goes


def work_left(server):
    """Gauges of requests and blocks that are not 0 once a cancelled request's last step has had time to end."""
    for _ in range(HANG_SECONDS * 20):
        gauges = re.findall(r'^gatehouse_(?:requests_(?:running|waiting)\{|kv_blocks\{state="used").*', server.metrics(), re.M)
        assert len(gauges) == 7, gauges
        left = [gauge for gauge in gauges if not gauge.endswith("} 0")]
        if not left:
            break
        threading.Event().wait(0.05)
    return left


class ConnectionsTest(unittest.TestCase):
    CONNECTIONS, ROUNDS, AT_ONCE = 40, 4, 10

    def test_nothing_of_them_stays(self):
        with Server("--max-sequences", "8", "--max-queued-requests", "32") as server:
            codes, lock = set(), threading.Lock()
            generate(server, text_request())

            def run_round(number):
                seeds = iter(range(number * self.CONNECTIONS, (number + 1) * self.CONNECTIONS))

                def work():
                    while True:
                        with lock:
                            seed = next(seeds, None)
                        if seed is None:
                            return
                        one_connection(server.target, seed, codes, lock)

                threads = [threading.Thread(target=work) for _ in range(self.AT_ONCE)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(HANG_SECONDS)

            def settled(descriptors, threads):
                for _ in range(HANG_SECONDS * 20):
                    now = use_of(server)
                    if now[0] <= descriptors and now[1] <= threads:
                        return now
                    threading.Event().wait(0.05)
                return use_of(server)

            idle = use_of(server)
            # gRPC keeps some threads that it has made once; memory reaches its level in the first rounds.
            for number in range(2):
                run_round(number)
            first = settled(idle[0], idle[1] + 8)
            for number in range(2, self.ROUNDS):
                run_round(number)
            last = settled(idle[0], first[1])
            self.assertLessEqual(codes, EXPECTED)
            self.assertLessEqual({Code.OK, Code.CANCELLED}, codes)
            self.assertEqual(last[0], idle[0], "descriptors")
            self.assertLessEqual(last[1], max(first[1], idle[1] + 8), "threads")
            if not KEEPS_FREED_MEMORY:
                self.assertLess(last[2], first[2] + (24 << 20), f"resident bytes: {idle}, {first}, {last}")
            self.assertEqual(work_left(server), [])
            self.assertEqual(len(generate(server, text_request()).ids), 16)


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Servers in this process for testing programs of ours as clients: scripted, and able to fail as a real one seldom does."""
import concurrent.futures
import pathlib
import subprocess
import threading

import grpc
from gatehouse.v1 import admin_pb2, admin_pb2_grpc
from gatehouse.v1 import inference_pb2 as pb
from gatehouse.v1 import inference_pb2_grpc
from google.rpc import error_details_pb2, status_pb2
from harness import DETAILS_KEY


class FakeInference(inference_pb2_grpc.InferenceServicer):
    """Generate: the prompt's first word says what happens; anything else is answered with "fine"."""

    def __init__(self):
        self.num_requests = 0
        self.authorization = None

    def Generate(self, request, context):
        self.num_requests += 1
        self.authorization = dict(context.invocation_metadata()).get("authorization")
        if request.text == "busy" and self.num_requests < 3:  # then there is room
            self._refuse(context)
        yield pb.GenerateResponse(started=pb.Started(prompt_tokens=1))
        yield pb.GenerateResponse(delta=pb.Delta(text="fine"))
        if request.text == "torn":
            context.abort(grpc.StatusCode.UNAVAILABLE, "a rank is lost")
        if request.text == "escape":
            yield pb.GenerateResponse(delta=pb.Delta(text="\x1b[31m"))
        yield pb.GenerateResponse(finished=pb.Finished(reason=pb.Finished.LENGTH))

    @staticmethod
    def _refuse(context):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(500)
        details = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="the queue is full")
        details.details.add().Pack(retry)
        context.set_trailing_metadata([(DETAILS_KEY, details.SerializeToString())])
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")


class FakeAdmin(admin_pb2_grpc.AdminServicer):
    """Two layers of four experts; every answer counts on. Keeps the last request of each kind in `seen`."""

    def __init__(self):
        self.seen = {}
        self.num_answers = 0
        self.answered = threading.Semaphore(0)  # one for each ExpertLoad

    def _see(self, request):
        self.seen[type(request).__name__] = request

    def GetStatus(self, request, context):
        self._see(request)
        self.num_answers += 1
        return admin_pb2.ServerStatus(
            state=admin_pb2.ServerStatus.SERVING, model="fake", version="9.9", uptime_seconds=3725, running_requests=3,
            waiting_requests=2, kv_blocks_used=25, kv_blocks_total=100, kv_block_tokens=16,
            throughput=admin_pb2.Throughput(window_seconds=10, generated_tokens_per_second=123.4),
            totals=admin_pb2.Totals(generated_tokens=self.num_answers, ended_requests=7))

    def WatchStatus(self, request, context):
        self._see(request)
        while context.is_active():
            yield self.GetStatus(admin_pb2.GetStatusRequest(), context)

    def GetExpertLoad(self, request, context):
        self._see(request)
        tokens = [self.num_answers * weight for weight in (0, 1, 2, 4)]
        layers = [admin_pb2.LayerExpertLoad(layer=layer, tokens=tokens, imbalance=2.29)
                  for layer in (request.layers or (0, 1))]
        self.answered.release()
        return admin_pb2.ExpertLoad(layers=layers)

    def GetRequests(self, request, context):
        self._see(request)
        return admin_pb2.GetRequestsResponse(total=5, requests=[admin_pb2.ActiveRequest(
            request_id="r\x1b1", tenant="t", state=admin_pb2.ActiveRequest.RUNNING, age_seconds=75, prompt_tokens=8,
            generated_tokens=4)])

    def CancelRequest(self, request, context):
        self._see(request)
        if request.request_id == "nobody":
            context.abort(grpc.StatusCode.NOT_FOUND, "no request has the id nobody")
        return admin_pb2.CancelRequestResponse(cancelled=2)

    def Drain(self, request, context):
        self._see(request)
        return admin_pb2.DrainResponse(open_requests=3)

    def SetLogLevel(self, request, context):
        self._see(request)
        return admin_pb2.SetLogLevelResponse(previous=admin_pb2.SetLogLevelRequest.INFO)


class FakeServer:
    """Serves what it is given on a free port; `credentials` as grpc.ssl_server_credentials makes them."""

    def __init__(self, inference=None, admin=None, credentials=None, address="127.0.0.1:0"):
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        if inference is not None:
            inference_pb2_grpc.add_InferenceServicer_to_server(inference, self._server)
        if admin is not None:
            admin_pb2_grpc.add_AdminServicer_to_server(admin, self._server)
        port = (self._server.add_insecure_port(address) if credentials is None
                else self._server.add_secure_port(address, credentials))
        self.target = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self):
        self._server.stop(None).wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Certificates:
    """An authority, and what it signed for the server (localhost, 127.0.0.1) and a client; another authority. PEM files
    NAME.crt and NAME.key in `folder`, made by openssl."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        for name in ("authority", "stranger"):
            self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                          "2", "-subj", f"/CN={name}", "-keyout", self.path(f"{name}.key"), "-out",
                          self.path(f"{name}.crt"))
        for name in ("server", "client"):
            self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
                          f"/CN={name}", "-keyout", self.path(f"{name}.key"), "-out", self.path(f"{name}.csr"))
            extensions = self.folder / f"{name}.ext"
            extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            self._openssl("x509", "-req", "-in", self.path(f"{name}.csr"), "-CA", self.path("authority.crt"), "-CAkey",
                          self.path("authority.key"), "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out",
                          self.path(f"{name}.crt"))

    def path(self, name):
        return str(self.folder / name)

    def pem(self, name):
        return (self.folder / name).read_bytes()

    @staticmethod
    def _openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

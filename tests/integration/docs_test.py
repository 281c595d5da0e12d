"""docs/operations.md and docs/protocol.md against what the server says of itself."""
import pathlib
import re
import subprocess
import time
import unittest

from gatehouse.v1 import admin_pb2, inference_pb2
from harness import HANG_SECONDS, ServerTest, generate, program, text_request

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
UNITS = {"KiB": 2**10, "MiB": 2**20}


def rows(document, first_cell):
    """The rows of all tables whose first cell matches `first_cell`, as lists of cells."""
    found = []
    for line in (DOCS / document).read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if line.startswith("|") and re.fullmatch(first_cell, cells[0]):
            found.append(cells)
    return found


def help_flags():
    """Flag -> default, as --help says it."""
    text = subprocess.run([program("gatehouse-server"), "--help"], capture_output=True, text=True, check=True,
                          timeout=HANG_SECONDS).stdout
    flags = {}
    for entry in re.split(r"\n  (?=-)", text)[1:]:
        name = re.search(r"--[a-z-]+", entry).group()
        default = re.search(r"\[([^\[\]]*)\]\s*$", entry)
        flags[name] = default.group(1) if default else ""
    return flags


class DocsTest(ServerTest):
    FLAGS = ("--shadow-exact-fraction", "1", "--ranks", "2")

    def test_every_flag_and_its_default(self):
        documented = {row[0].strip("`"): row[1].strip("`") for row in rows("operations.md", r"`--[a-z-]+`")}
        actual = help_flags()
        self.assertEqual(set(documented), set(actual))
        for name, default in actual.items():
            if default:
                self.assertEqual(documented[name], default, name)

    def test_every_metric(self):
        # Bounds on experts' devices, used once: then there is something to tell of them.
        self.server.admin.SetRoutingPolicy(admin_pb2.SetRoutingPolicyRequest(policy=admin_pb2.RoutingPolicy(
            shared=admin_pb2.BoundedRouting(policy="device_bound", device_factor=0.75, min_mean_load=0, reroute=2,
                                            force=True, exempt_layers=admin_pb2.LayerList()),
            devices=admin_pb2.ExpertDevices(count=4))))
        request = text_request()
        request.routing.mode = inference_pb2.Routing.SHARED
        generate(self.server, request)
        limit = time.monotonic() + HANG_SECONDS
        while "gatehouse_shadow_exact_" not in self.server.metrics() and time.monotonic() < limit:
            time.sleep(0.02)
        exported = set(re.findall(r"^# TYPE (\S+) (\S+)$", self.server.metrics(), re.MULTILINE))
        documented = {(row[0].strip("`"), row[1]) for row in rows("operations.md", r"`gatehouse_\w+`")}
        self.assertLessEqual(exported, documented)
        # These have no value before there is something to tell.
        self.assertEqual({name for name, _ in documented - exported},
                         {"gatehouse_tls_certificate_expiry_timestamp_seconds", "gatehouse_reloads_total"})

    def test_every_limit_without_a_flag_and_its_value(self):
        limits = self.server.stub.GetServerInfo(inference_pb2.GetServerInfoRequest()).limits
        names = [field.name for field in limits.DESCRIPTOR.fields]
        for name, value, _ in rows("operations.md", r"`(max_\w+|stall_seconds)`"):
            name = name.strip("`")
            self.assertIn(name, names)
            number, _, unit = value.partition(" ")
            self.assertEqual(getattr(limits, name), float(number) * UNITS.get(unit, 1), name)

    def test_every_method(self):
        documented = {name for row in rows("protocol.md", r"`\w+`(, `\w+`)*") for name in re.findall(r"`(\w+)`", row[0])}
        for module, service in ((inference_pb2, "Inference"), (admin_pb2, "Admin")):
            methods = {method.name for method in module.DESCRIPTOR.services_by_name[service].methods}
            self.assertLessEqual(methods - {"Generate"}, documented)


if __name__ == "__main__":
    unittest.main(verbosity=2)

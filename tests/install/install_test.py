"""What `cmake --install` puts down is whole: another project finds the package, builds against it and talks to the
installed server, after the prefix was moved."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import harness
from harness import HANG_SECONDS, generate, text_request

BUILD_DIR = pathlib.Path(os.environ["GATEHOUSE_BUILD_DIR"])
CONSUMER_DIR = pathlib.Path(__file__).resolve().parent / "consumer"
CMAKE = os.environ["GATEHOUSE_CMAKE"]
PUBLIC_HEADERS = {
    "client/admin_client.h", "client/client_options.h", "client/gatehouse_client.h", "client/rpc_error.h",
    "v1/admin.pb.h", "v1/admin.grpc.pb.h", "v1/inference.pb.h", "v1/inference.grpc.pb.h"}
PROMPT = "It is a truth universally acknowledged, that"


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command[:3]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


class InstallTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        run(CMAKE, "--install", BUILD_DIR, "--prefix", cls.folder / "first")
        cls.prefix = (cls.folder / "first").rename(cls.folder / "moved")  # nothing may remember where it was
        harness.BIN_DIR = cls.prefix / "bin"

    def test_the_public_headers_are_there_and_lead_nowhere_else(self):
        include = self.prefix / "include"
        found = {str(path.relative_to(include / "gatehouse")) for path in include.rglob("*.h")}
        self.assertEqual(found, PUBLIC_HEADERS)
        known = re.compile(r'(absl/|google/protobuf/|grpcpp/|gatehouse/)|[a-z_]+$')
        for path in include.rglob("*.h"):
            for name in re.findall(r'^#include ["<](.*)[">]', path.read_text(), re.MULTILINE):
                with self.subTest(header=path.name):
                    self.assertRegex(name, known)

    def test_the_protos_are_those_of_the_repository(self):
        source = pathlib.Path(__file__).resolve().parents[2] / "proto"
        installed = self.prefix / "share" / "gatehouse" / "proto"
        names = sorted(path.relative_to(source) for path in source.rglob("*.proto"))
        self.assertGreater(len(names), 2)
        for name in names:
            self.assertEqual((installed / name).read_text(), (source / name).read_text())

    def test_another_project_builds_and_talks_to_the_installed_server(self):
        build = self.folder / "consumer"
        run(CMAKE, "-S", CONSUMER_DIR, "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={self.prefix}",
            f"-DCMAKE_CXX_COMPILER={os.environ['GATEHOUSE_CXX']}")
        run(CMAKE, "--build", build)
        with harness.Server() as server:
            expected = generate(server, text_request(PROMPT, max_new_tokens=8)).text
            done = subprocess.run([build / "consumer", server.target, PROMPT], capture_output=True, text=True,
                                  timeout=HANG_SECONDS, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(done.stdout, f"qwen3_moe\n{expected}\nsampling.top_p\n")

    def test_the_programs_are_there(self):
        for name in ("gatehouse", "gatehouse-loadgen", "gatehouse-server"):
            with self.subTest(program=name):
                self.assertIn("--help", run(self.prefix / "bin" / name, "--help"))


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/env python3
"""Builds deploy/Dockerfile.cpu from programs that are there already, runs it as an operator would, and stops it.

    image_test.py build/cpu/bin        exit 77, and why, where containers cannot run
"""
import pathlib
import subprocess
import sys
import time
import unittest
import urllib.request

import podman as containers
from podman import FOLDER, podman

IMAGE = "localhost/gatehouse:test"
NAME = "gatehouse-test"
MAX_BYTES_OVER_BASE = 120_000_000
SECONDS = 60
LOCKED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory",
          "1g")


class ImageTest(unittest.TestCase):
    bin_dir = None

    @classmethod
    def setUpClass(cls):
        programs = FOLDER / "bin"
        programs.mkdir(exist_ok=True)
        for name in ("gatehouse-server", "gatehouse"):
            subprocess.run(["strip", "-o", programs / name, cls.bin_dir / name], check=True)
        podman("build", "-q", "--isolation", "chroot", "--format", "docker", "--network", "host", "--build-arg",
               f"BASE={containers.BASE_IMAGE}", "--build-arg", "BINARIES=prebuilt", "--build-arg", "VERSION=test", "-t",
               IMAGE, "-f", containers.ROOT / "deploy/Dockerfile.cpu", containers.ROOT)

    def setUp(self):
        podman("run", "-d", "--name", NAME, "-p", "127.0.0.1::50051", "-p", "127.0.0.1::9464", *LOCKED, IMAGE)
        self.addCleanup(podman, "rm", "-f", "-t", "0", NAME, check=False)
        self.target, self.metrics = (podman("port", NAME, port).stdout.strip() for port in (50051, 9464))
        limit = time.monotonic() + SECONDS
        while podman("healthcheck", "run", NAME, check=False).returncode != 0:
            self.assertEqual(containers.inspect("container", NAME)["State"]["Status"], "running", self.log())
            self.assertLess(time.monotonic(), limit, self.log())
            time.sleep(0.1)

    def log(self):
        return podman("logs", NAME, check=False).stderr

    def client(self, *arguments):
        return subprocess.run([self.bin_dir / "gatehouse", *arguments, "--target", self.target], text=True,
                              capture_output=True, timeout=SECONDS, check=False)

    def scrape(self):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=SECONDS) as response:
            return response.read().decode()

    def number_running(self):
        return sum(float(line.rpartition(" ")[2]) for line in self.scrape().splitlines()
                   if line.startswith("gatehouse_requests_running{"))

    def test_image_is_small_and_says_what_is_in_it(self):
        image, base = (containers.inspect("image", name) for name in (IMAGE, containers.BASE_IMAGE))
        added = image["Size"] - base["Size"]
        print(f"image: {added / 1e6:.0f} MB beyond the base of {base['Size'] / 1e6:.0f} MB")
        self.assertLess(added, MAX_BYTES_OVER_BASE)
        self.assertEqual(image["Labels"]["org.opencontainers.image.version"], "test")
        self.assertEqual(image["User"], "10001:10001")
        packages = podman("exec", NAME, "cat", "/usr/share/gatehouse/packages.txt").stdout
        self.assertIn("libgrpc++1.51", packages)

    def test_streams_and_counts_without_rights(self):
        done = self.client("generate", "It is a truth", "--max-new-tokens", "16", "--ignore-eos", "--temperature", "0")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(len(done.stdout), 10)
        self.assertIn('gatehouse_generated_tokens_total{model="demo"} 16\n', self.scrape())
        status = podman("exec", NAME, "cat", "/proc/1/status").stdout
        for line in ("Uid:\t10001\t10001\t10001\t10001\n", "CapEff:\t0000000000000000\n", "NoNewPrivs:\t1\n"):
            self.assertIn(line, status)
        self.assertNotEqual(podman("exec", NAME, "touch", "/tmp/file", check=False).returncode, 0, "read-only")

    def test_is_unhealthy_when_nothing_answers(self):
        command = containers.inspect("image", IMAGE)["Healthcheck"]["Test"]
        self.assertEqual(command[:2], ["CMD", "gatehouse"])
        wrong = [argument.replace(":50051", ":1") for argument in command[1:]]
        self.assertNotEqual(podman("exec", NAME, *wrong, check=False).returncode, 0)

    def test_sigterm_while_requests_run_ends_with_0(self):
        load = subprocess.Popen([self.bin_dir / "gatehouse-loadgen", "--target", self.target, "--clients", "8",
                                 "--duration", str(SECONDS), "--max-new-tokens", "200", "--ignore-eos"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(load.wait)
        self.addCleanup(load.kill)
        limit = time.monotonic() + SECONDS
        while self.number_running() < 4:
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.02)
        podman("stop", "-t", SECONDS, NAME)
        self.assertEqual(containers.inspect("container", NAME)["State"]["ExitCode"], 0, self.log())
        self.assertIn("draining", self.log())


def main():
    ImageTest.bin_dir = pathlib.Path(sys.argv.pop(1)).resolve()
    reason = containers.unavailable()
    if reason is None:
        reason = containers.make_base_image()
    if reason is None:
        reason = containers.cannot_run_containers()
    if reason is not None:
        print(f"skipped, no container was built or run: {reason}")
        return 77
    try:
        return 0 if unittest.main(verbosity=2, exit=False).result.wasSuccessful() else 1
    finally:
        containers.reset()


if __name__ == "__main__":
    sys.exit(main())

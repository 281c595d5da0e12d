"""Servers under load, a Prometheus that scrapes them with the rules of deploy/, and queries as Grafana would send them.

    tests/integration/run.sh live_monitoring.py FILE 60     writes what all panels show of a minute, for draw_panels.py

    with Monitored() as monitored:
        monitored.load()
        variables = monitored.variables(dashboard)
        monitored.series(resolve(target["expr"], variables))
"""
import datetime
import json
import math
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb

from certificates import Authority
from harness import HANG_SECONDS, Server, generate, program, text_request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "deploy/grafana/dashboards"
SCRAPE_SECONDS = 1
RATE_INTERVAL = f"{4 * SCRAPE_SECONDS}s"  # as Grafana: max(step + scrape interval, 4 scrape intervals)
LOAD_SECONDS = 12
REPLAY_SECONDS = 10  # of a request of a few tokens, on a slow machine


def dashboards():
    return [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]


def panels(dashboard):
    """All but rows, those inside of collapsed rows too."""
    for panel in dashboard["panels"]:
        for each in [panel, *panel.get("panels", [])]:
            if each["type"] != "row":
                yield each


def bounds(device_factor):
    """A policy whose every part has something to do."""
    return admin.RoutingPolicy(
        devices=admin.ExpertDevices(count=4),
        shared=admin.BoundedRouting(policy="device_bound", device_factor=device_factor, min_mean_load=0, reroute=2,
                                    force=True, exempt_layers=admin.LayerList()),
        isolated=admin.BoundedRouting(policy="locmoe_plus", isolation=admin.BoundedRouting.BLOCK_CAUSAL,
                                      expert_factor=0.75, block_tokens=32, reroute=0,
                                      exempt_layers=admin.LayerList()))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _get(url):
    try:
        with urllib.request.urlopen(url, timeout=HANG_SECONDS) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)


def _wait_until(condition, what):
    limit = time.monotonic() + HANG_SECONDS
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"waited {HANG_SECONDS} s for {what}")
        time.sleep(0.1)


class Monitored:
    """A server, one with TLS, and Prometheus on the configuration of deploy/prometheus, but for addresses and times."""

    def __enter__(self):
        if shutil.which("prometheus") is None:
            raise unittest.SkipTest("no prometheus: deploy/install-deps.sh --test")
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        self._authority = Authority(folder, "authority")
        self._certificate, key = self._authority.sign("server")
        self.server = Server("--shadow-exact-fraction", "1", "--ranks", "2")
        self._tls_server = Server("--tls-cert", str(self._certificate), "--tls-key", str(key), "--max-sequences", "1",
                                  "--max-queued-requests", "1")
        self.base = f"http://127.0.0.1:{_free_port()}"
        (folder / "prometheus.yml").write_text(self._config())
        self._log = open(folder / "log", "w+")
        self._prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={self.base.removeprefix('http://')}"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_):
        self._prometheus.terminate()
        self._prometheus.wait(timeout=HANG_SECONDS)
        self._log.close()
        codes = self.server.stop(), self._tls_server.stop()
        self._folder.cleanup()
        if codes != (0, 0):
            raise AssertionError(f"the servers ended with {codes}")

    def _config(self):
        text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
        targets = ", ".join(f'"{server.ready["metrics"]}"' for server in (self.server, self._tls_server))
        for old, new in (("_interval: 15s", f"_interval: {SCRAPE_SECONDS}s"),
                         ('["gatehouse:9464"]', f"[{targets}]"),
                         ("  - recording.yml", f"  - {ROOT}/deploy/prometheus/recording.yml"),
                         ("  - alerts.yml", f"  - {ROOT}/deploy/prometheus/alerts.yml")):
            if old not in text:
                raise AssertionError(f"deploy/prometheus/prometheus.yml: no '{old}'")
            text = text.replace(old, new)
        return text.partition("alerting:")[0]

    def load(self, seconds=LOAD_SECONDS):
        """Requests of every mode for so long, with pauses in which shadows are replayed; calls that are refused; a
        change of the policy; a certificate that cannot be read again."""
        self.server.admin.SetRoutingPolicy(admin.SetRoutingPolicyRequest(policy=bounds(0.75)))
        for mode in (pb.Routing.SHARED, pb.Routing.ISOLATED):  # the series of experts and modes begin
            generate(self.server, self._bounded_request(mode))
        _wait_until(lambda: self._value("count(up == 1)") == 2, "two targets that are up")
        self._tls_server.signal(signal.SIGHUP)
        self.start = time.time()
        loads = [self._send_load(seconds, self.server.target, "--rate", 2, "--max-in-flight", 2, "--seed", seed, "--mode",
                                 mode)
                 for seed, mode in enumerate(("exact", "isolated", "shared"))]
        self._be_refused(seconds)
        time.sleep(seconds / 2)  # a change in the middle, so that there is a before and an after
        self.server.admin.SetRoutingPolicy(admin.SetRoutingPolicyRequest(policy=bounds(0.5)))
        self._move_experts()
        self._be_refused(seconds)
        self._certificate.write_text("not a certificate\n")
        self._tls_server.signal(signal.SIGHUP)
        for each in loads:
            report = each.communicate(timeout=seconds + HANG_SECONDS)[1]
            if each.returncode != 0:
                raise AssertionError(report)
        self._replay_a_shadow()
        _wait_until(lambda: self._value('count(gatehouse_reloads_total{result="error"})'), "a reload that failed")
        self.end = time.time() + SCRAPE_SECONDS  # a range has a point a step: one of them sees that reload
        _wait_until(lambda: self._value("min(timestamp(up))") > self.end, "the last scrape")
        scraped = time.time()
        _wait_until(lambda: self._judged() > scraped, "the rules to be judged once more")

    @staticmethod
    def _send_load(seconds, target, *flags):
        command = [program("gatehouse-loadgen"), "--target", target, "--duration", seconds, "--prompt-tokens", 48,
                   "--max-new-tokens", 24, *flags]
        return subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def _be_refused(self, seconds):
        """One sequence runs, one waits, others are refused: gatehouse-loadgen counts them as failures."""
        self._send_load(seconds, self._tls_server.target, "--tls-ca", self._authority.certificate, "--tls-server-name",
                        "localhost", "--clients", 4, "--requests", 200).communicate(timeout=seconds + HANG_SECONDS)

    def _move_experts(self):
        """Few different tokens, until there are enough of them to plan by."""
        def moved():
            for _ in range(8):
                self.num_prompts += 1
                generate(self.server, pb.GenerateRequest(
                    tokens=pb.TokenIds(ids=[300 + i * i * 7 % 5 for i in range(240)]), cache_salt=str(self.num_prompts),
                    stop=pb.Stop(max_new_tokens=1)))
            asked = self.server.admin.Rebalance(admin.RebalanceRequest(replicas=2, force=True))
            for status in self.server.admin.WatchRebalance(admin.WatchRebalanceRequest(interval_seconds=0.1),
                                                           timeout=HANG_SECONDS):
                if status.state not in (admin.RebalanceStatus.PLANNED, admin.RebalanceStatus.MOVING):
                    break
            return status.id == asked.id and status.layers_moved > 0
        self.num_prompts = 0
        _wait_until(moved, "experts that moved")

    def _replay_a_shadow(self):
        """Under load all may have been skipped: they wait for a server that is idle."""
        def replayed():
            pattern = r'^gatehouse_shadow_exact_requests_total\{.*result="replayed".*\} (\S+)$'
            return sum(map(float, re.findall(pattern, self.server.metrics(), re.MULTILINE)))
        before = replayed()

        def another_is():
            generate(self.server, self._bounded_request(pb.Routing.SHARED))
            limit = time.monotonic() + REPLAY_SECONDS  # the next request would interrupt it
            while replayed() == before and time.monotonic() < limit:
                time.sleep(0.05)
            return replayed() > before
        _wait_until(another_is, "a shadow")

    @staticmethod
    def _bounded_request(mode):
        request = text_request()
        request.routing.mode = mode
        return request

    def _value(self, expr):
        """Of one number now; 0 while there is none."""
        found = self.api("query", query=expr)["data"]["result"]
        return float(found[0]["value"][1]) if found else 0

    def _judged(self):
        """When the group of rules that waits longest was evaluated."""
        return min(datetime.datetime.fromisoformat(group["lastEvaluation"]).timestamp()
                   for group in self.api("rules")["data"]["groups"])

    def api(self, path, **parameters):
        url = f"{self.base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return _get(url)
        except (urllib.error.URLError, ConnectionError):  # it is starting
            if self._prometheus.poll() is not None:
                self._log.flush()
                raise AssertionError(pathlib.Path(self._log.name).read_text()) from None
            return {"status": "error", "error": "no answer", "data": {"result": []}}

    def scraped_families(self):
        return {name for server in (self.server, self._tls_server)
                for name in re.findall(r"^# TYPE (\S+)", server.metrics(), re.MULTILINE)}

    def variables(self, dashboard):
        """Name -> what Grafana puts for it when all its values are chosen."""
        values = {"__rate_interval": RATE_INTERVAL}
        for variable in dashboard["templating"]["list"]:
            if variable["type"] != "query":
                continue
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            found = self.api(f"label/{label}/values", **{"match[]": resolve(metric, values)})
            if not found.get("data"):
                raise AssertionError(f"variable {variable['name']} has no values: {found}")
            # Escaped for the expression and for the string that it stands in.
            escaped = [re.sub(r"[$^*{}\[\]+?.()|]", r"\\\\\g<0>", value) for value in found["data"]]
            values[variable["name"]] = escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
        return values

    def series(self, expr, instant=False):
        """[(labels, [(time, value)])] over the time of the load; raises what Prometheus says is wrong."""
        if instant:
            answer = self.api("query", query=expr, time=self.end)
        else:
            answer = self.api("query_range", query=expr, start=self.start, end=self.end, step=SCRAPE_SECONDS)
        if answer["status"] != "success":
            raise AssertionError(f"{expr}: {answer['error']}")
        return [(each["metric"], [(t, float(v)) for t, v in each.get("values") or [each["value"]]])
                for each in answer["data"]["result"]]


def resolve(expr, variables):
    return re.sub(r"\$(\w+)", lambda match: variables[match[1]], expr)


def has_values(series):
    return any(math.isfinite(value) for _, points in series for _, value in points)


def as_question(expr):
    """The expression with comparisons that answer 0 or 1: empty then only if there is nothing to compare. What guards a
    division, (x > 0), stays."""
    parts = re.split(r"(\{[^}]*\})", expr)
    return "".join(part if part.startswith("{") else re.sub(r"(==|!=|>=|<=|<|>)(?! 0\))", r"\1 bool", part)
                   for part in parts)


def names_in(expr):
    """Families of the metrics in an expression."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bgatehouse_\w+", expr)}


def main():
    with Monitored() as monitored:
        monitored.load(int(sys.argv[2]))
        shown = []
        for dashboard in dashboards():
            variables = monitored.variables(dashboard)
            shown.append({"uid": dashboard["uid"], "panels": {
                panel["id"]: [monitored.series(resolve(target["expr"], variables), target.get("instant", False))
                              for target in panel["targets"]] for panel in panels(dashboard)}})
        pathlib.Path(sys.argv[1]).write_text(json.dumps(shown))


if __name__ == "__main__":
    main()

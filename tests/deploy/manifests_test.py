#!/usr/bin/env python3
"""Dockerfile, compose files, Kubernetes manifests, systemd unit and example configuration against their schemas, and
against what the server says of itself.

    manifests_test.py build/cpu/bin      with the Python of tests/python_env.sh --deploy
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = pathlib.Path(sys.executable).parent
NO_SCHEMA = {"ServiceMonitor"}  # of the Prometheus operator, not of Kubernetes


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120,
                          cwd=ROOT, check=False)


def read(path):
    return yaml.safe_load((DEPLOY / path).read_text())


def rendered(folder):
    """The objects of a kustomization, by kind."""
    return {kind: each for (_, kind), each in all_rendered(folder).items()}


def all_rendered(folder):
    """Name and kind -> object, where there are several of a kind."""
    if shutil.which("kubectl") is None:
        raise unittest.SkipTest("no kubectl, which is no Debian package: manifests not rendered")
    done = run("kubectl", "kustomize", DEPLOY / folder)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return {(each["metadata"]["name"], each["kind"]): each for each in yaml.safe_load_all(done.stdout)}


def container_of(deployment):
    return deployment["spec"]["template"]["spec"]["containers"][0]


def strings(value):
    """All strings in a YAML value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


def seconds_of_drain(arguments):
    return int(re.search(r"--drain-seconds=(\d+)", " ".join(arguments))[1])


class ManifestsTest(unittest.TestCase):
    bin_dir = None

    def assert_passes(self, *command):
        done = run(*command)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def flags_of(self, name):
        flags = set()
        for command in ([], ["health"]) if name == "gatehouse" else ([],):
            text = self.assert_passes(self.bin_dir / name, *command, "--help")
            flags |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
        return flags

    def default_of(self, flag):
        text = self.assert_passes(self.bin_dir / "gatehouse-server", "--help")
        return re.search(rf"{flag} .*?\[([^\]]*)\]", text, re.DOTALL)[1]

    @unittest.skipIf(shutil.which("yamllint") is None, "no yamllint: deploy/install-deps.sh --containers")
    def test_yaml_is_tidy(self):
        self.assert_passes("yamllint", "--strict", DEPLOY, ROOT / "tests/deploy")

    def test_hadolint_finds_nothing_in_the_dockerfile(self):
        self.assert_passes(TOOLS / "hadolint", DEPLOY / "Dockerfile.cpu")

    def test_compose_files_fit_the_schema(self):
        files = [DEPLOY / "compose.yaml", DEPLOY / "compose.tls.yaml"]
        self.assert_passes(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)

    def test_what_compose_mounts_is_there(self):
        for service in read("compose.yaml")["services"].values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((DEPLOY / source).is_dir(), source)
        grafana = read("compose.yaml")["services"]["grafana"]
        provider = read("grafana/provisioning/dashboards/gatehouse.yml")["providers"][0]["options"]["path"]
        self.assertIn(f"./grafana/dashboards:{provider}:ro", grafana["volumes"])
        home = pathlib.PurePath(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
        self.assertEqual(str(home.parent), provider)
        self.assertTrue((DEPLOY / "grafana/dashboards" / home.name).exists())

    def test_addresses_that_services_use_are_services(self):
        services = read("compose.yaml")["services"]
        targets = re.findall(r'"([a-z]+):(\d+)"', (DEPLOY / "prometheus/prometheus.yml").read_text())
        targets += re.findall(r"http://([a-z]+):(\d+)",
                              (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
        self.assertEqual({name for name, _ in targets}, {"gatehouse", "alertmanager", "prometheus"})
        self.assertLessEqual({name for name, _ in targets}, set(services))
        datasource = read("grafana/provisioning/datasources/prometheus.yml")["datasources"][0]
        self.assertEqual(datasource["jsonData"]["timeInterval"],
                         read("prometheus/prometheus.yml")["global"]["scrape_interval"])

    def test_kubernetes_objects_fit_the_schemas(self):
        for folder in ("k8s/base", "k8s/tls"):
            objects = rendered(folder)
            self.assertEqual(set(objects), NO_SCHEMA | {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"})
            self.assert_valid(objects.values())

    def assert_valid(self, objects):
        file = ROOT / "build/deploy-objects.yaml"
        file.parent.mkdir(exist_ok=True)
        checked = [each for each in objects if each["kind"] not in NO_SCHEMA]
        file.write_text(yaml.safe_dump_all(checked))
        said = self.assert_passes(TOOLS / "kubernetes-validate", "--strict", file)
        self.assertEqual(said.count(" passed for "), len(checked), said)

    def test_ranks_of_a_deployment_find_each_other(self):
        objects = all_rendered("k8s/ranks")
        self.assert_valid(objects.values())
        server, workers = objects["gatehouse", "Deployment"]["spec"], objects["gatehouse-worker", "StatefulSet"]["spec"]
        flags = [dict(each[2:].partition("=")[::2] for each in container_of({"spec": spec})["args"])
                 for spec in (server, workers)]
        known = self.flags_of("gatehouse-server")
        self.assertLessEqual({"--" + name for each in flags for name in each}, known)
        self.assertEqual((server["replicas"], server["strategy"]), (1, {"type": "Recreate"}))
        self.assertEqual(int(flags[0]["workers"]), workers["replicas"])
        ranks = objects["gatehouse-ranks", "Service"]
        self.assertEqual(flags[1]["join"], f"{ranks['metadata']['name']}:{ranks['spec']['ports'][0]['port']}")
        self.assertEqual(flags[0]["worker-listen"], f"0.0.0.0:{ranks['spec']['ports'][0]['targetPort']}")
        self.assertEqual(ranks["spec"]["selector"], server["template"]["metadata"]["labels"])
        self.assertEqual(workers["serviceName"], ranks["metadata"]["name"])
        names = {spec["template"]["metadata"]["labels"]["app.kubernetes.io/name"] for spec in (server, workers)}
        policy = objects["gatehouse-ranks", "NetworkPolicy"]["spec"]
        peers = [policy["podSelector"], policy["ingress"][0]["from"][0]["podSelector"],
                 policy["egress"][0]["to"][0]["podSelector"]]
        for peer in peers:
            self.assertEqual(set(peer["matchExpressions"][0]["values"]), names)
        for spec in (server, workers):
            container = container_of({"spec": spec})
            mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
            self.assertEqual(mounts["deployment"] + "/token", flags[0]["deployment-token-file"])
            self.assertEqual(container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "status.podIP")

    def test_kubernetes_selectors_select_the_pods_and_nothing_else(self):
        labels = {"matchLabels": {"app.kubernetes.io/name": "gatehouse"}}
        for folder in ("k8s/base", "k8s/tls"):
            objects = rendered(folder)
            pod = objects["Deployment"]["spec"]["template"]
            self.assertEqual(pod["metadata"]["labels"], labels["matchLabels"])
            self.assertEqual(objects["Service"]["spec"]["selector"], labels["matchLabels"])
            for kind, key in (("Deployment", "selector"), ("PodDisruptionBudget", "selector"),
                              ("NetworkPolicy", "podSelector"), ("ServiceMonitor", "selector")):
                self.assertEqual(objects[kind]["spec"][key], labels, f"{folder}: {kind}")

    def test_ports_are_those_of_the_image_and_none_is_the_operators(self):
        dockerfile = (DEPLOY / "Dockerfile.cpu").read_text()
        exposed = {int(port) for port in re.search(r"^EXPOSE (.*)$", dockerfile, re.MULTILINE)[1].split()}
        listened = {int(port) for port in re.findall(r"GATEHOUSE_\w*LISTEN=0\.0\.0\.0:(\d+)", dockerfile)}
        self.assertEqual(exposed, listened)
        operators = int(self.default_of("--admin-listen").rpartition(":")[2])
        self.assertNotIn(operators, exposed)
        for folder in ("k8s/base", "k8s/tls"):
            objects = rendered(folder)
            container = container_of(objects["Deployment"])
            ports = {each["name"]: each["containerPort"] for each in container["ports"]}
            self.assertEqual(set(ports.values()), exposed)
            for each in objects["Service"]["spec"]["ports"]:
                self.assertEqual(ports[each["targetPort"]], each["port"])
            self.assertIn(objects["ServiceMonitor"]["spec"]["endpoints"][0]["port"], ports)
            opened = {each["port"] for rule in objects["NetworkPolicy"]["spec"]["ingress"] for each in rule["ports"]}
            self.assertEqual(opened, exposed)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                with self.subTest(folder=folder, probe=probe):
                    self.assertEqual(len({"grpc", "httpGet"} & set(container[probe])), 1)
                    if "grpc" in container[probe]:
                        self.assertEqual(container[probe]["grpc"]["port"], ports["grpc"])
                        self.assertIn("--insecure", container["args"], "the kubelet's gRPC probes speak no TLS")
                    else:
                        self.assertEqual(container[probe]["httpGet"]["port"], "metrics")

    def test_every_flag_and_variable_is_one_of_the_program(self):
        server, client = self.flags_of("gatehouse-server"), self.flags_of("gatehouse")
        num_flags = 0
        lists = [container_of(rendered(folder)["Deployment"])["args"] for folder in ("k8s/base", "k8s/tls")]
        lists += [read(file)["services"]["gatehouse"]["command"] for file in ("compose.yaml", "compose.tls.yaml")]
        dockerfile = (DEPLOY / "Dockerfile.cpu").read_text()
        lists.append(json.loads(re.search(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[1]))
        lists.append(re.search(r"^ExecStart=(.*)$", (DEPLOY / "systemd/gatehouse-server.service").read_text(),
                               re.MULTILINE)[1].split()[1:])
        for arguments in lists:
            for argument in arguments:
                num_flags += 1
                self.assertIn(argument.partition("=")[0], server)
        self.assertGreater(num_flags, 10)
        checks = read("compose.tls.yaml")["services"]["gatehouse"]["healthcheck"]["test"]
        checks += json.loads(re.search(r"HEALTHCHECK [^[]*CMD (\[.*\])$", dockerfile, re.MULTILINE)[1])
        self.assertLessEqual({each.partition("=")[0] for each in checks if each.startswith("--")}, client)
        variables = re.findall(r"GATEHOUSE_(\w+)=", re.search(r"^ENV (.*)$", dockerfile, re.MULTILINE)[1])
        self.assertEqual(len(variables), 3)
        for name in variables:
            self.assertIn("--" + name.lower().replace("_", "-"), server)

    def test_a_drain_has_the_time_it_may_take(self):
        for folder in ("k8s/base", "k8s/tls"):
            deployment = rendered(folder)["Deployment"]
            self.assertGreater(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
                               seconds_of_drain(container_of(deployment)["args"]) + 5)
        grace = int(read("compose.yaml")["services"]["gatehouse"]["stop_grace_period"].rstrip("s"))
        for file in ("compose.yaml", "compose.tls.yaml"):
            self.assertGreater(grace, seconds_of_drain(read(file)["services"]["gatehouse"]["command"]) + 5)
        unit = (DEPLOY / "systemd/gatehouse-server.service").read_text()
        self.assertGreater(int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]),
                           read("examples/server.yaml")["drain-seconds"] + 5)

    def test_the_example_configuration_is_taken(self):
        example = read("examples/server.yaml")
        said = self.assert_passes(self.bin_dir / "gatehouse-server", "--config", DEPLOY / "examples/server.yaml",
                                  "--print-config")
        for key, value in example.items():
            self.assertRegex(said, rf"(?m)^{key}: \S*{re.escape(str(value))}")

    def test_the_unit_is_one(self):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("no systemd-analyze")
        text = (DEPLOY / "systemd/gatehouse-server.service").read_text()
        unit = ROOT / "build/gatehouse-server.service"
        unit.write_text(text.replace("/usr/local/bin/gatehouse-server", str(self.bin_dir / "gatehouse-server")))
        done = run("systemd-analyze", "verify", "--man=no", unit)
        self.assertNotRegex(done.stdout + done.stderr, r"gatehouse-server\.service")
        done = run("systemd-analyze", "security", "--offline=true", "--threshold=30", unit)
        self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr)

    def test_alertmanager_takes_its_configuration_and_its_alerts_exist(self):
        if shutil.which("amtool") is None:
            self.skipTest("no amtool: deploy/install-deps.sh --containers")
        self.assert_passes("amtool", "check-config", DEPLOY / "alertmanager/alertmanager.yml")
        alerts = set(re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus/alerts.yml").read_text()))
        named = {name for text in strings(read("alertmanager/alertmanager.yml")["inhibit_rules"])
                 for name in re.findall(r'="(Gatehouse\w+)"', text)}
        self.assertTrue(named)
        self.assertLessEqual(named, alerts)


if __name__ == "__main__":
    ManifestsTest.bin_dir = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main(verbosity=2)

#!/usr/bin/env python3
"""Dashboards and rules as files: what can be said of them without a server. Needs Python and promtool."""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "deploy/grafana"
PROMETHEUS = ROOT / "deploy/prometheus"
WIDTH = 24


def dashboards():
    return {path.name: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}


def all_panels(dashboard):
    """Rows and panels, those of collapsed rows too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def anchors(document):
    """What Markdown makes of the headings."""
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)}


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


class DashboardTest(unittest.TestCase):
    def test_files_are_what_the_generator_writes(self):
        done = subprocess.run([sys.executable, GRAFANA / "make_dashboards.py", "--check"], capture_output=True,
                              text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertGreaterEqual(len(dashboards()), 2)

    def test_ids_are_unique_and_panels_do_not_overlap(self):
        self.assertEqual(len({dashboard["uid"] for dashboard in dashboards().values()}), len(dashboards()))
        for name, dashboard in dashboards().items():
            ids = [panel["id"] for panel in all_panels(dashboard)]
            self.assertEqual(len(ids), len(set(ids)), name)
            taken = set()
            for panel in all_panels(dashboard):
                place = panel["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], WIDTH, panel["title"])
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                         for y in range(place["y"], place["y"] + place["h"])}
                if panel in dashboard["panels"]:  # those of a collapsed row have no place before it opens
                    self.assertFalse(cells & taken, panel["title"])
                    taken |= cells

    def test_every_panel_has_a_unit_a_description_and_the_data_source_that_is_chosen(self):
        for name, dashboard in dashboards().items():
            row, places = "", set()
            for panel in all_panels(dashboard):
                if panel["type"] == "row":
                    row = panel["title"]
                    continue
                where = f"{name}: {row}: {panel['title']}"
                self.assertNotIn(where, places)
                places.add(where)
                self.assertRegex(panel["description"], r"^[A-Z].{15,}\.$", where)
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], where)
                self.assertTrue(panel["targets"], where)
                for target in panel["targets"]:
                    self.assertEqual(target["datasource"]["uid"], "${datasource}", where)
                    self.assertIn("$instance", target["expr"], where)

    def test_links_lead_to_dashboards_that_are_there_with_variables_they_have(self):
        by_uid = {dashboard["uid"]: dashboard for dashboard in dashboards().values()}
        num_links = 0
        for dashboard in by_uid.values():
            for panel in all_panels(dashboard):
                for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", []):
                    num_links += 1
                    uid = re.match(r"/d/([\w-]+)\?", link["url"])[1]
                    self.assertIn(uid, by_uid)
                    has = {variable["name"] for variable in by_uid[uid]["templating"]["list"]}
                    wanted = set(re.findall(r"\$\{(\w+):queryparam\}|&var-(\w+)=", link["url"]))
                    self.assertLessEqual({name for pair in wanted for name in pair if name}, has)
        self.assertGreater(num_links, 0)

    def test_queries_use_variables_that_the_dashboard_has(self):
        for name, dashboard in dashboards().items():
            has = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
            texts = [target["expr"] for panel in all_panels(dashboard) for target in panel.get("targets", [])]
            texts += [variable.get("definition", "") for variable in dashboard["templating"]["list"]]
            used = re.findall(r"\$(\w+)", " ".join(texts))
            self.assertLessEqual(set(used), has, name)
            self.assertLessEqual(has, set(used) | {"datasource"}, name)


@unittest.skipIf(shutil.which("promtool") is None, "no promtool: deploy/install-deps.sh --test")
class RulesTest(unittest.TestCase):
    ALERTS = re.findall(r"- alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text())

    def test_promtool_finds_nothing_wrong(self):
        done = promtool("check", "config", PROMETHEUS / "prometheus.yml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_alert_fires_and_resolves(self):
        done = promtool("test", "rules", ROOT / "tests/deploy/alerts_test.yml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        text = (ROOT / "tests/deploy/alerts_test.yml").read_text()
        for alert in self.ALERTS:
            case = text.split(f"- name: {alert}\n", 1)[-1].split("- name: ", 1)[0]
            self.assertEqual(re.findall(rf'alertname="{alert}".*?value: (\d)', case, re.DOTALL), ["0", "1", "0"], alert)

    def test_each_alert_says_what_to_do(self):
        text = (PROMETHEUS / "alerts.yml").read_text()
        runbooks = re.findall(r"runbook_url: (\S+)#(\S+)", text)
        self.assertEqual(len(runbooks), len(self.ALERTS))
        self.assertGreaterEqual(len(self.ALERTS), 12)
        for document, anchor in runbooks:
            self.assertIn(anchor, anchors(ROOT / document))
        operations = (ROOT / "docs/operations.md").read_text()
        for alert in self.ALERTS:
            self.assertIn(f"`{alert}`", operations)


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Every query of every dashboard and rule of deploy/ against a Prometheus that scrapes servers under load."""
import re
import unittest

import live_monitoring as live

OPERATIONS = live.ROOT / "docs/operations.md"
UNUSED = set()  # families on no panel and in no rule, each with its reason


class MonitoringTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.monitored = cls.enterClassContext(live.Monitored())
        cls.monitored.load()
        cls.rules = [rule for group in cls.monitored.api("rules")["data"]["groups"] for rule in group["rules"]]

    def test_every_query_of_every_panel_finds_values(self):
        num_queries = 0
        for dashboard in live.dashboards():
            variables = self.monitored.variables(dashboard)
            for panel in live.panels(dashboard):
                for target in panel["targets"]:
                    num_queries += 1
                    with self.subTest(dashboard=dashboard["title"], panel=panel["title"], query=target["refId"]):
                        expr = live.resolve(target["expr"], variables)
                        series = self.monitored.series(expr, target.get("instant", False))
                        self.assertTrue(live.has_values(series), f"no values: {expr}\n{series}")
                        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                            self.assertTrue(all(label in labels for labels, _ in series), f"no label {label}: {expr}")
        self.assertGreater(num_queries, 70)

    def test_a_panel_of_a_metric_that_is_not_there_would_be_found(self):
        self.assertFalse(live.has_values(self.monitored.series("rate(gatehouse_no_such_total[4s])")))
        self.assertFalse(live.has_values(self.monitored.series("0 * gatehouse_engine_state / 0")))
        with self.assertRaises(AssertionError):
            self.monitored.series("rate(gatehouse_requests_total)")

    def test_annotations_find_what_happened(self):
        for dashboard in live.dashboards():
            variables = self.monitored.variables(dashboard)
            for annotation in dashboard["annotations"]["list"]:
                with self.subTest(dashboard=dashboard["title"], annotation=annotation["name"]):
                    expr = live.resolve(annotation["expr"], variables)
                    self.assertTrue(live.has_values(self.monitored.series(live.as_question(expr))), expr)
                    if annotation["name"] in ("Policy", "Rebalances"):
                        self.assertTrue(live.has_values(self.monitored.series(expr)), "the load did it")

    def test_every_rule_is_judged_and_has_something_to_judge(self):
        self.assertGreaterEqual(len(self.rules), 22)
        for rule in self.rules:
            with self.subTest(rule=rule["name"]):
                self.assertEqual((rule["health"], rule.get("lastError", "")), ("ok", ""))
                expr = rule["query"] if rule["type"] == "recording" else live.as_question(rule["query"])
                self.assertTrue(live.has_values(self.monitored.series(expr)), expr)

    def test_the_alerts_that_should_fire_do(self):
        states = {rule["name"]: rule["state"] for rule in self.rules if rule["type"] == "alerting"}
        self.assertEqual(states["GatehouseReloadFailed"], "firing", "the certificate was spoiled")
        self.assertEqual(states["GatehouseCertificateExpires"], "pending", "it has two days")
        self.assertEqual(states["GatehouseDown"], "inactive")

    def test_every_family_is_exported_and_looked_at(self):
        exported = self.monitored.scraped_families()
        documented = set(re.findall(r"^\| `(gatehouse_\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
        self.assertEqual(exported, documented, "the load makes every family appear")
        texts = [rule["query"] for rule in self.rules]
        for dashboard in live.dashboards():
            texts += [target["expr"] for panel in live.panels(dashboard) for target in panel["targets"]]
            texts += [variable.get("definition", "") for variable in dashboard["templating"]["list"]]
        used = set().union(*map(live.names_in, texts))
        self.assertEqual(exported - used, UNUSED)


if __name__ == "__main__":
    unittest.main(verbosity=2)

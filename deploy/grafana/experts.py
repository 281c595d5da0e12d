"""Dashboard *Experts*: who computes what, what bounds cost, and whether the answers are still the exact ones."""
from panels import (LAYER, SERVER, annotation, bars, dashboard, lines, link_to, matrix, number, query, rate, row,
                    series_map, share, steps, variable, with_link)

UID = "gatehouse-experts"
TOKENS = "gatehouse_expert_tokens_total"
# An expert's tokens over what it would have if all of its layer had as many: 1 is even.
OF_MEAN = (f"{rate(TOKENS, LAYER, 'layer, expert')} / on (layer) group_left () "
           f"(avg by (layer) (sum by (layer, expert) (rate({TOKENS}{{{LAYER}}}[$__rate_interval]))) > 0)")
PAIRS = rate("gatehouse_routing_assignments_total", SERVER)
MASS = "gatehouse_routing_gate_mass_total"
SHADOW_TOKENS = "gatehouse_shadow_exact_tokens_total"


def fate(name):
    return rate("gatehouse_routing_assignments_total", f'{SERVER},fate="{name}"')


def mass_kept(by=""):
    return share(rate(MASS, SERVER + ',part="computed"', by), rate(MASS, SERVER + ',part="chosen"', by))


def agreement(by=""):
    return share(rate("gatehouse_shadow_exact_agreed_tokens_total", SERVER, by), rate(SHADOW_TOKENS, SERVER, by))


def falling(orange, red):
    """Thresholds of a share that should be high."""
    return [{"color": "red", "value": None}, {"color": "orange", "value": red}, {"color": "green", "value": orange}]


NOW = row("Now", [
    number("Worst imbalance", "Most loaded expert over the mean of its layer, in the last 10 to 20 s; 1 is even.",
           "none", f"max(gatehouse_expert_load_imbalance_ratio{{{LAYER}}})", steps(3, 5), decimals=2),
    with_link(number("Experts at work", "Experts that get a token in one step, in all layers together.", "none",
                     share(rate("gatehouse_experts_active_total", SERVER),
                           rate("gatehouse_step_duration_seconds_count", SERVER)), decimals=0),
              link_to("gatehouse-serving", "The steps")),
    number("Gate mass kept", "Share of the gate values of chosen experts that was computed, all modes.", "percentunit",
           mass_kept(), falling(0.99, 0.95), decimals=2),
    number("Rerouted", "Share of pairs of a token and an expert it chose that went to another expert.", "percentunit",
           share(fate("rerouted"), PAIRS), steps(0.05, 0.2), decimals=2),
    number("Dropped", "Share of pairs of a token and an expert it chose that nobody computed.", "percentunit",
           share(fate("dropped"), PAIRS), steps(0.01, 0.02), decimals=2),
    number("Agrees with exact", "Shadow-exact: share of tokens where bounded and exact routing find the same token "
           "most likely.", "percentunit", agreement(), falling(0.98, 0.95), decimals=2),
])

LOAD = row("Load", [
    matrix("Load of every expert", "Tokens of each expert over the mean of its layer: 1 is even. A click on a cell opens "
           "the expert's layer below.", "none", OF_MEAN, "layer", "expert",
           [{"color": "dark-blue", "value": None}, {"color": "green", "value": 0.5}, {"color": "orange", "value": 2},
            {"color": "red", "value": 4}],
           links=[link_to(UID, "This layer alone", "&var-layer=${__data.fields[0]}")]),
    series_map("Load of experts over time", "Tokens in a second of each expert, summed over the chosen layers. Choose "
               "one layer to see that layer.", "short", rate(TOKENS, LAYER, "expert"), "{{expert}}", axis="expert"),
    series_map("Imbalance of layers over time", "Most loaded expert over the mean, last 10 to 20 s, layer by layer.",
               "none", f"max by (layer) (gatehouse_expert_load_imbalance_ratio{{{LAYER}}})", "{{layer}}", axis="layer"),
    bars("Hot experts", "The ten experts with the most tokens over the mean of their layer.", "none",
         f"topk(10, {OF_MEAN})", "layer {{layer}}, expert {{expert}}"),
    bars("Wanted experts", "The ten experts that gates choose most, before bounds; appears with bounded requests.",
         "short", f"topk(10, {rate('gatehouse_expert_chosen_tokens_total', LAYER, 'layer, expert')})",
         "layer {{layer}}, expert {{expert}}"),
    lines("Imbalance", "Most loaded expert over the mean of its layer, last 10 to 20 s: the worst layer and the mean of "
          "all.", "none", [query(f"max(gatehouse_expert_load_imbalance_ratio{{{LAYER}}})", "worst layer"),
                           query(f"avg(gatehouse_expert_load_imbalance_ratio{{{LAYER}}})", "mean")]),
])

BOUNDS = row("Bounds", [
    lines("Places of an expert", "Capacity: fewest places of an expert in the last step with bounded tokens; 0: not "
          "bounded.", "short",
          [query(f"min by (layer) (gatehouse_expert_capacity_tokens{{{LAYER}}})", "layer {{layer}}")]),
    lines("What decides the places", "Experts in a second by what bounds them.", "ops",
          [query(rate("gatehouse_expert_capacity_cause_total", SERVER, "cause"), "{{cause}}")], stacked=True),
    lines("Not computed where chosen", "Tokens in a second that did not get an expert they chose: what became of them, and "
          "why.", "ops", [query(rate("gatehouse_expert_overflow_tokens_total", LAYER, "action, cause"),
                                "{{action}}, {{cause}}")], stacked=True),
    lines("What became of the choices", "Pairs of a token and an expert that it chose, in a second.", "ops",
          [query(rate("gatehouse_routing_assignments_total", SERVER, "mode, fate"), "{{mode}}, {{fate}}")],
          stacked=True),
    bars("Rerouted from", "The ten experts that most tokens were sent away from.", "ops",
         f"topk(10, {rate('gatehouse_expert_rerouted_tokens_total', LAYER, 'layer, expert')})",
         "layer {{layer}}, expert {{expert}}"),
    bars("Dropped at", "The ten experts that lost the most tokens for good.", "ops",
         f"topk(10, {rate('gatehouse_expert_dropped_tokens_total', LAYER, 'layer, expert')})",
         "layer {{layer}}, expert {{expert}}"),
    lines("Tokens that lost all", "Times in a second that a token lost all its experts, and got one back within the bounds, "
          "one beyond, or none.", "ops",
          [query(rate("gatehouse_routing_covered_tokens_total", SERVER), "one within"),
           query(rate("gatehouse_routing_overrides_total", SERVER), "one beyond"),
           query(rate("gatehouse_routing_uncomputed_tokens_total", SERVER), "none")]),
    lines("Floors that did not fit", "Pressure: floors that did not fit, and pairs that devices evicted below a floor.",
          "ops", [query(rate("gatehouse_expert_pressure_total", LAYER, "layer"), "layer {{layer}}")]),
    lines("Policy in force", "Version of the routing policy; every change raises it by one.", "none",
          [query(f"gatehouse_policy_version{{{SERVER}}}", "{{instance}}")]),
])

DEVICES = row("Devices", [
    lines("Load of devices", "Tokens that each device got under a budget, in a second, once for each expert.", "ops",
          [query(rate("gatehouse_device_tokens_total", SERVER, "device"), "device {{device}}")]),
    lines("Budget used", "Tokens that a device got over what its budgets let it have.", "percentunit",
          [query(share(rate("gatehouse_device_tokens_total", SERVER, "device"),
                       rate("gatehouse_device_budget_tokens_total", SERVER, "device")), "device {{device}}")]),
    lines("Fullest device of a layer", "Most loaded device over its budget in the last step with one.", "percentunit",
          [query(f"max by (layer) (gatehouse_device_budget_usage_ratio{{{LAYER}}})", "layer {{layer}}")]),
])

QUALITY = row("What bounds cost", [
    lines("Gate mass kept, by mode", "Share of the gate values of chosen experts that was computed.", "percentunit",
          [query(mass_kept("mode"), "{{mode}}")], max=1),
    lines("Gate mass kept, by layer", "Of bounded tokens, since the server's start.", "percentunit",
          [query(f"min by (layer) (gatehouse_expert_gate_mass_kept_ratio{{{LAYER}}})", "layer {{layer}}")], max=1),
    lines("Same token as exact", "Shadow-exact: share of tokens where bounded and exact routing find the same token most "
          "likely.", "percentunit", [query(agreement("mode"), "{{mode}}")], max=1),
    lines("Distance from exact", "Shadow-exact: KL divergence of the bounded from the exact distribution, in nats a token.",
          "none", [query(share(rate("gatehouse_shadow_exact_kl_nats_total", SERVER, "mode"),
                               rate(SHADOW_TOKENS, SERVER, "mode")), "{{mode}}")], decimals=4),
    lines("Requests of the sample", "Shadow-exact: replayed exactly, or skipped since the server was busy.", "reqps",
          [query(rate("gatehouse_shadow_exact_requests_total", SERVER, "mode, result"), "{{mode}}, {{result}}")],
          stacked=True),
    lines("Tokens of the sample", "Shadow-exact: tokens compared in a second.", "ops",
          [query(rate(SHADOW_TOKENS, SERVER, "mode"), "{{mode}}")]),
])


def build():
    layer = variable("layer", "Layer", f"gatehouse_expert_load_imbalance_ratio{{{SERVER}}}", "layer",
                     "Layers of experts, by their number in the model.")
    return dashboard(
        UID, "Gatehouse: Experts", "Load of every expert, what capacity bounds do, and what they cost.",
        [NOW, LOAD, BOUNDS, DEVICES, QUALITY], variables=[layer],
        annotations=[annotation("Policy", f"changes(gatehouse_policy_version{{{SERVER}}}[1m]) > 0", "purple",
                                "Routing policy changed")])

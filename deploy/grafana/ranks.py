"""Dashboard *Expert parallel*: what ranks exchange, who waits for whom, and how even their work is."""
from panels import (SERVER, annotation, bucket_map, dashboard, lines, link_to, number, quantile, query, rate, row, share, steps,
                    with_link)

UID = "gatehouse-ranks"
DURATION = "gatehouse_alltoall_duration_seconds"
WAIT = "gatehouse_alltoall_wait_seconds"
TOKENS = "gatehouse_expert_rank_tokens_total"
STEPS = "gatehouse_step_duration_seconds_sum"
RANKS = f"count(gatehouse_rank_up{{{SERVER}}})"

NOW = row("Now", [
    number("Ranks", "That take part in steps.", "none", f"sum(gatehouse_rank_up{{{SERVER}}})"),
    with_link(number("Exchanging", "Share of a rank's time in steps that goes into exchanges, waiting included.", "percentunit",
                     f"{rate(DURATION + '_sum', SERVER)} / ({rate(STEPS, SERVER)} > 0) / {RANKS}", steps(0.15, 0.4),
                     decimals=1), link_to("gatehouse-machine", "What the steps reach")),
    number("Of it waiting", "Share of the exchanges' time in which a rank waits for another.", "percentunit",
           share(rate(WAIT + "_sum", SERVER), rate(DURATION + "_sum", SERVER)), decimals=1),
    number("Between ranks", "Bytes sent to other ranks in a second.", "Bps",
           rate("gatehouse_alltoall_bytes_total", SERVER + ',direction="sent"')),
    with_link(number("Imbalance", "Most loaded rank's tokens over the mean; 1 is even.", "none",
                     f"max(sum by (rank) (rate({TOKENS}{{{SERVER}}}[$__rate_interval]))) / "
                     f"(avg(sum by (rank) (rate({TOKENS}{{{SERVER}}}[$__rate_interval]))) > 0)", steps(1.5, 2.5), decimals=2),
              link_to("gatehouse-experts", "Which experts")),
])

EXCHANGES = row("Exchanges", [
    lines("Duration, p95", "The slowest twentieth, by what is exchanged: what rows chose, rows to their experts, results.", "s",
          [query(quantile(0.95, DURATION, SERVER, "phase"), "{{phase}}")]),
    lines("Waiting, p95", "Of it, waiting for the last rank to come.", "s",
          [query(quantile(0.95, WAIT, SERVER, "phase"), "{{phase}}")]),
    lines("Time in exchanges", "Seconds in a second, of all ranks together: waiting, and moving rows.", "percentunit",
          [query(rate(WAIT + "_sum", SERVER), "waiting"),
           query(f"{rate(DURATION + '_sum', SERVER)} - {rate(WAIT + '_sum', SERVER)}", "moving")], stacked=True),
    bucket_map("All exchanges", "How many took how long.", DURATION, SERVER, width=12),
    lines("Bytes", "Bytes that ranks send to other ranks in a second.", "Bps",
          [query(rate("gatehouse_alltoall_bytes_total", SERVER + ',direction="sent"', "phase"), "{{phase}}")], width=12,
          stacked=True),
])

RANK = row("Ranks", [
    lines("Tokens of each rank", "Computed by the rank's experts in a second, once for each expert.", "ops",
          [query(rate(TOKENS, SERVER, "rank"), "rank {{rank}}")]),
    lines("Who waits", "Share of the time in which the rank waits for others: the one that waits least holds up the rest.",
          "percentunit", [query(rate("gatehouse_rank_wait_seconds_total", SERVER, "rank"), "rank {{rank}}")], max=1),
    lines("Up", "Ranks that take part in steps.", "none",
          [query(f"sum by (instance) (gatehouse_rank_up{{{SERVER}}})", "{{instance}}")]),
    lines("Losses", "How often a rank was lost, and how many groups there were: one more at each loss and each return.", "none",
          [query(f"sum by (rank) (gatehouse_rank_losses_total{{{SERVER}}})", "losses of rank {{rank}}"),
           query(f"max by (instance) (gatehouse_group_epoch{{{SERVER}}})", "group of {{instance}}")], width=12),
    lines("Without steps", "Share of the time in which ranks formed a new group: nobody got a token.", "percentunit",
          [query(rate("gatehouse_regroup_duration_seconds_sum", SERVER, "instance"), "{{instance}}")], width=12),
])

REBALANCES = row("Rebalances", [
    lines("Imbalance of the last rebalance", "Busiest rank over the mean: before, as planned, and as it came. 0: not known.", "none",
          [query(f"max by (instance, when) (gatehouse_eplb_imbalance_ratio{{{SERVER}}})", "{{when}}, {{instance}}")]),
    lines("State", "Of the last rebalance; planned and moving last seconds.", "none",
          [query(f"max by (state) (gatehouse_eplb_state{{{SERVER}}})", "{{state}}")], max=1),
    lines("Rebalances", "Since the start, by what became of them.", "none",
          [query(f"sum by (result) (gatehouse_eplb_rebalances_total{{{SERVER}}})", "{{result}}")]),
    number("Copies moved", "Copies of experts that ranks got which did not have them, since the start.", "none",
           f"sum(gatehouse_eplb_copies_moved_total{{{SERVER}}})"),
    number("Last change", "When experts last went to other ranks.", "dateTimeFromNow",
           f"1000 * (max(gatehouse_eplb_last_change_timestamp_seconds{{{SERVER}}}) > 0)"),
])


def build():
    return dashboard(UID, "Gatehouse: Expert parallel", "What ranks exchange, who waits for whom, and how even their work is.",
                     [NOW, EXCHANGES, RANK, REBALANCES],
                     annotations=[annotation("Rebalances", f"changes(gatehouse_eplb_last_change_timestamp_seconds{{{SERVER}}}[1m]) > 0",
                                             "blue", "Experts moved between ranks")])

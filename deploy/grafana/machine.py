"""Dashboard *Machine*: how near the steps come to what the machine can read and compute."""
from panels import SERVER, dashboard, lines, link_to, number, query, rate, row, share, steps, with_link

UID = "gatehouse-machine"
BYTES = "gatehouse_step_read_bytes_total"
OPERATIONS = "gatehouse_step_operations_total"
SECONDS = "gatehouse_step_duration_seconds_sum"
READ_LIMIT = f"sum(gatehouse_machine_read_bytes_per_second{{{SERVER}}})"


def in_steps(metric, by=""):
    """Per second that was spent in steps: a machine that waits is not a slow one."""
    if by:
        return f"{rate(metric, SERVER, by)} / on () group_left () ({rate(SECONDS, SERVER)} > 0)"
    return share(rate(metric, SERVER), rate(SECONDS, SERVER))


def of_bound(by=""):
    return share(rate("gatehouse_step_bound_seconds_total", SERVER, by), rate(SECONDS, SERVER, by))


NOW = row("Now", [
    with_link(number("Share of the limit", "Time that the steps would have taken at the machine's limits over the time they "
                     "took.", "percentunit", of_bound(), decimals=1),
              link_to("gatehouse-serving", "The steps")),
    number("Read", "Bytes that steps had to read, in a second of steps.", "Bps", in_steps(BYTES)),
    number("Read limit", "Read bandwidth of memory, measured at the start.", "Bps", READ_LIMIT),
    number("Float limit", "Peak of the instruction set in use, measured at the start; a multiply-add is two.", "short",
           f'sum(gatehouse_machine_operations_per_second{{{SERVER},kind="float"}})'),
    number("Integer limit", "The same for products of 8-bit numbers.", "short",
           f'sum(gatehouse_machine_operations_per_second{{{SERVER},kind="integer"}})'),
    number("Busy", "Share of the time that the engine spends in steps.", "percentunit",
           f"avg(rate({SECONDS}{{{SERVER}}}[$__rate_interval]))", steps(0.9, 0.98)),
])

SHARES = row("Roofline", [
    lines("Share of the limit, by phase", "Bound over duration: steps that read prompts are bound by operations, steps "
          "that generate by reading.", "percentunit", [query(of_bound("phase"), "{{phase}}")], max=1),
    lines("Last step", "Share of the limit that the last step of each phase reached.", "percentunit",
          [query(f"max by (phase) (gatehouse_step_roofline_ratio{{{SERVER}}})", "{{phase}}")], max=1),
    lines("Time in steps", "Seconds of steps in a second, by phase, and what they would have been at the limits.", "percentunit",
          [query(rate(SECONDS, SERVER, "phase"), "{{phase}}"),
           query(rate("gatehouse_step_bound_seconds_total", SERVER), "at the limits")]),
])

WORK = row("Work", [
    lines("Bytes read", "Bytes that steps had to read in a second of steps, by what they are, and the limit.", "Bps",
          [query(in_steps(BYTES, "kind"), "{{kind}}"), query(READ_LIMIT, "limit")]),
    lines("Operations", "Operations that steps had to do in a second of steps; integer ones are products of int8 and int4 "
          "weights.", "short", [query(in_steps(OPERATIONS, "kind"), "{{kind}}")]),
    lines("Operations for each byte", "Few: bound by reading. A machine's limits divide at the line named so.", "none",
          [query(share(rate(OPERATIONS, SERVER), rate(BYTES, SERVER)), "steps"),
           query(f"sum(gatehouse_machine_operations_per_second{{{SERVER},kind=\"float\"}}) / {READ_LIMIT}",
                 "limits, float")]),
])


def build():
    return dashboard(UID, "Gatehouse: Machine", "How near the steps come to what the machine can read and compute.",
                     [NOW, SHARES, WORK], variables=[], annotations=[])

"""Dashboard *Serving*: traffic, latency, queue, memory, errors, tenants."""
from panels import (MODEL, SERVER, annotation, bucket_map, dashboard, lines, link_to, number, quantile, quantiles, query,
                    rate, row, share, steps, with_link)

UID = "gatehouse-serving"
FAULTS = 'code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS"'
ENDED = rate("gatehouse_requests_total", MODEL)

NOW = row("Now", [
    number("Not serving", "Servers that load, drain or stall. A stalled one has work and ends no step.", "none",
           f'sum(gatehouse_engine_state{{state!="serving",{SERVER}}})', steps(1, 1)),
    number("Running", "Requests that take part in steps.", "none", f"sum(gatehouse_requests_running{{{MODEL}}})"),
    number("Waiting", "Requests in the queue.", "none", f"sum(gatehouse_requests_waiting{{{MODEL}}})", steps(100, 800)),
    with_link(number("Generated", "Tokens generated in a second.", "short",
                     rate("gatehouse_generated_tokens_total", MODEL)),
              link_to("gatehouse-experts", "Which experts computed them")),
    number("First token, p95", "From accepting a request to its first token.", "s",
           quantile(0.95, "gatehouse_time_to_first_token_seconds", MODEL), steps(1, 2.5)),
    number("Faults", "Share of calls that ended by a fault of the server.", "percentunit",
           share(f"({rate('gatehouse_requests_total', MODEL + ',' + FAULTS)} or vector(0))", ENDED), steps(0.001, 0.01)),
])

TRAFFIC = row("Traffic", [
    lines("Tokens", "Prompt tokens computed or taken from the prefix cache, and tokens generated, in a second.", "short",
          [query(rate("gatehouse_prompt_tokens_total", MODEL, "source"), "prompt, {{source}}"),
           query(rate("gatehouse_generated_tokens_total", MODEL), "generated")]),
    lines("Calls by status", "Calls that ended, by gRPC status.", "reqps",
          [query(rate("gatehouse_requests_total", MODEL, "code"), "{{code}}")], stacked=True),
    lines("Calls by method", "Calls that ended, by method of the API.", "reqps",
          [query(rate("gatehouse_requests_total", MODEL, "method"), "{{method}}")], stacked=True),
])

LATENCY = row("Latency", [
    lines("Time to first token", "From accepting a request to its first token, the queue included.", "s",
          quantiles("gatehouse_time_to_first_token_seconds", MODEL)),
    lines("Between tokens", "Between two tokens of one request.", "s",
          quantiles("gatehouse_inter_token_seconds", MODEL)),
    lines("Whole request", "From accepting a request to its end.", "s",
          quantiles("gatehouse_request_duration_seconds", MODEL)),
    bucket_map("Time to first token, all requests", "How many requests had which time to first token.",
               "gatehouse_time_to_first_token_seconds", MODEL, width=12),
    bucket_map("Between tokens, all tokens", "How many tokens came how long after the one before.",
               "gatehouse_inter_token_seconds", MODEL, width=12),
])

QUEUE = row("Queue", [
    lines("Waiting", "Requests in the queue by priority, and how many may wait in all before others are refused.",
          "short", [query(f"sum by (priority) (gatehouse_requests_waiting{{{MODEL}}})", "{{priority}}"),
                    query(f"sum(gatehouse_requests_waiting_limit{{{SERVER}}})", "limit")]),
    lines("Prompt tokens waiting", "Of the requests in the queue, and how many may wait before others are refused.",
          "short", [query(f"sum by (priority) (gatehouse_queue_tokens{{{MODEL}}})", "{{priority}}"),
                    query(f"sum(gatehouse_queue_tokens_limit{{{SERVER}}})", "limit")]),
    lines("Time in the queue", "Time in the queue of requests that have ended.", "s",
          quantiles("gatehouse_request_queue_seconds", MODEL)),
])

ENGINE = row("Engine", [
    lines("Running", "Requests that take part in steps.", "short",
          [query(f"sum by (priority) (gatehouse_requests_running{{{MODEL}}})", "{{priority}}")], stacked=True),
    lines("Steps by phase", "Steps in a second that only read prompts, only generate, or do both.", "ops",
          [query(rate("gatehouse_step_duration_seconds_count", SERVER, "phase"), "{{phase}}")], stacked=True),
    lines("Duration of a step, p95", "The slowest twentieth, by what the step does.", "s",
          [query(quantile(0.95, "gatehouse_step_duration_seconds", SERVER, "phase"), "{{phase}}")]),
    lines("Rows of a step", "Mean number of tokens that a step computes.", "short",
          [query(share(rate("gatehouse_step_tokens_sum", SERVER, "phase"),
                       rate("gatehouse_step_tokens_count", SERVER, "phase")), "{{phase}}")]),
    lines("Busy", "Share of the time that the engine spends in steps.", "percentunit",
          [query(rate("gatehouse_step_duration_seconds_sum", SERVER, "instance"), "{{instance}}")], max=1),
    lines("Since the last step", "Grows while there is nothing to do, or while a step hangs.", "s",
          [query(f"time() - (gatehouse_engine_last_step_timestamp_seconds{{{SERVER}}} > 0)", "{{instance}}")]),
])

MEMORY = row("KV cache", [
    lines("Usage", "Share of the blocks in use; at 1 requests give theirs back and are computed again.", "percentunit",
          [query(f"gatehouse_kv_cache_usage_ratio{{{SERVER}}}", "{{instance}}")], max=1),
    lines("Blocks", "Blocks of keys and values in use, and free.", "short",
          [query(f"sum by (state) (gatehouse_kv_blocks{{{SERVER}}})", "{{state}}")], stacked=True),
    lines("Prefix cache", "Share of prompt tokens that were there already.", "percentunit",
          [query(share(rate("gatehouse_prompt_tokens_total", MODEL + ',source="prefix_cache"'),
                       rate("gatehouse_prompt_tokens_total", MODEL)), "found")], width=4, max=1),
    lines("Preemptions", "Requests in a second that gave their blocks back to be computed again.", "ops",
          [query(rate("gatehouse_preemptions_total", SERVER), "preempted")], width=4),
])

TENANTS = row("Tenants", [
    lines("Tokens", "Of requests that have ended, in a second.", "short",
          [query(rate("gatehouse_tenant_tokens_total", SERVER, "tenant, kind"), "{{tenant}}, {{kind}}")], width=6),
    lines("Running", "Requests that take part in steps.", "short",
          [query(f"sum by (tenant) (gatehouse_tenant_requests_running{{{SERVER}}})", "{{tenant}}")], width=6),
    lines("Waiting", "Requests in the queue.", "short",
          [query(f"sum by (tenant) (gatehouse_tenant_requests_waiting{{{SERVER}}})", "{{tenant}}")], width=6),
    lines("Prompt tokens waiting", "Prompt tokens of the requests in the queue.", "short",
          [query(f"sum by (tenant) (gatehouse_tenant_queue_tokens{{{SERVER}}})", "{{tenant}}")], width=6),
])

SERVERS = row("Servers", [
    lines("Certificates expire in", "With TLS: the first certificate of each listener.", "s",
          [query(f"gatehouse_tls_certificate_expiry_timestamp_seconds{{{SERVER}}} - time()",
                 "{{instance}}, {{file}}")]),
    # Not a rate: each series begins with its first time, at 1.
    lines("Files read again", "Certificates, tokens and tenants, since the start; after an error the old content stays in "
          "force.", "none", [query(f"sum by (file, result) (gatehouse_reloads_total{{{SERVER}}})", "{{file}}, {{result}}")]),
    lines("Versions", "Servers by what they were built from and the instructions they use.", "none",
          [query(f"count by (version, backend, isa) (gatehouse_build_info{{{SERVER}}})",
                 "{{version}}, {{backend}}, {{isa}}")]),
], collapsed=True)


def build():
    return dashboard(
        UID, "Gatehouse: Serving", "Traffic, latency, queue, memory, errors and tenants of gatehouse-server.",
        [NOW, TRAFFIC, LATENCY, QUEUE, ENGINE, MEMORY, TENANTS, SERVERS],
        annotations=[annotation("Restart", f"changes(gatehouse_build_info{{{SERVER}}}[1m]) > 0 or "
                                f'gatehouse_engine_state{{state="loading",{SERVER}}} == 1', "blue", "Start"),
                     annotation("Drain", f'gatehouse_engine_state{{state="draining",{SERVER}}} == 1', "orange", "Drain"),
                     annotation("Stall", f'gatehouse_engine_state{{state="stalled",{SERVER}}} == 1', "red", "Stall")])

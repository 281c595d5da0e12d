"""What Grafana's dashboards are made of, as functions that return the JSON of Grafana 10 and later.

    row("Latency", [lines("Time to first token", "...", "s", [query("histogram_quantile(...)", "p95")])])

A panel has a title, a description, a unit and queries; dashboard() gives ids and places. In queries $instance, $model
and $layer are variables of the dashboard, and the selectors below stand in braces.
"""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # of Grafana's grid
MODEL = 'model=~"$model",instance=~"$instance"'  # of series that name their model
SERVER = 'instance=~"$instance"'  # of all others: a server has one model
LAYER = SERVER + ',layer=~"$layer"'


def query(expr, legend="", instant=False):
    target = {"datasource": DATASOURCE, "expr": expr, "legendFormat": legend, "editorMode": "code"}
    return target | ({"instant": True, "range": False, "format": "table"} if instant else {"range": True})


def rate(metric, selector, by=""):
    """Per second, summed; `by`: the labels that stay."""
    labels = f" by ({by})" if by else ""
    return f"sum{labels} (rate({metric}{{{selector}}}[$__rate_interval]))"


def share(part, whole):
    """Of two rates; nothing while the whole is 0."""
    return f"{part} / ({whole} > 0)"


def quantile(q, histogram, selector, by=""):
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({histogram}_bucket{{{selector}}}[$__rate_interval])))"


def quantiles(histogram, selector):
    return [query(quantile(q, histogram, selector), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)]


def steps(*values):
    """Thresholds: green, then orange and red from the values on."""
    colors = ["green", "orange", "red"]
    return [{"color": color, "value": value} for color, value in zip(colors, (None, *values))]


def _panel(kind, title, description, unit, targets, width, height, options, defaults=None, thresholds=None):
    field = {"unit": unit, "thresholds": {"mode": "absolute", "steps": thresholds or steps()}, **(defaults or {})}
    named = [target | {"refId": chr(ord("A") + i)} for i, target in enumerate(targets)]
    return {"type": kind, "title": title, "description": description, "datasource": DATASOURCE, "targets": named,
            "fieldConfig": {"defaults": field, "overrides": []}, "options": options,
            "gridPos": {"w": width, "h": height}}


def lines(title, description, unit, targets, width=8, stacked=False, **defaults):
    custom = {"lineWidth": 1, "fillOpacity": 30 if stacked else 5, "showPoints": "never", "spanNulls": False,
              "stacking": {"mode": "normal" if stacked else "none", "group": "A"}}
    options = {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "lastNotNull"],
                          "showLegend": True},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return _panel("timeseries", title, description, unit, targets, width, 8, options,
                  {"custom": custom, "min": 0, **defaults})


def number(title, description, unit, expr, thresholds=None, legend="", width=4, **defaults):
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value",
               "graphMode": "area", "textMode": "value_and_name" if legend else "auto"}
    return _panel("stat", title, description, unit, [query(expr, legend)], width, 4, options, defaults, thresholds)


def bars(title, description, unit, expr, legend, width=8):
    """The last value of each series, the longest bar first."""
    options = {"displayMode": "gradient", "orientation": "horizontal", "showUnfilled": True,
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    return _panel("bargauge", title, description, unit, [query(expr, legend)], width, 8, options, {"min": 0})


def bucket_map(title, description, histogram, selector, width=8):
    """Time to the right, the buckets of a histogram upwards."""
    target = query(f"sum by (le) (increase({histogram}_bucket{{{selector}}}[$__rate_interval]))", "{{le}}")
    return _heat_map(title, description, "short", target | {"format": "heatmap"}, width, "s", "")


def series_map(title, description, unit, expr, legend, width=12, axis=""):
    """Time to the right, a row for each series, whose legends must be numbers."""
    return _heat_map(title, description, unit, query(expr, legend), width, "short", axis)


def _heat_map(title, description, unit, target, width, axis_unit, axis):
    options = {"calculate": False, "cellGap": 0, "cellValues": {"unit": unit},
               "color": {"mode": "scheme", "scheme": "Turbo", "steps": 64}, "yAxis": {"unit": axis_unit,
                                                                                    "axisLabel": axis},
               "rowsFrame": {"layout": "auto"}, "legend": {"show": True},
               "tooltip": {"mode": "single", "showColorScale": True}}
    return _panel("heatmap", title, description, unit, [target], width, 10, options)


def matrix(title, description, unit, expr, row, column, thresholds, links=(), width=24):
    """A cell for each pair of two labels, coloured by its value: now, not over time."""
    options = {"showHeader": True, "cellHeight": "sm"}
    custom = {"cellOptions": {"type": "color-background", "mode": "gradient"}, "align": "center", "width": 60}
    panel = _panel("table", title, description, unit, [query(expr, instant=True)], width, 10, options,
                   {"custom": custom, "decimals": 2, "links": list(links)}, thresholds)
    panel["transformations"] = [{"id": "groupingToMatrix", "options": {"rowField": row, "columnField": column,
                                                                       "valueField": "Value"}}]
    return panel


def link_to(uid, title, variables=""):
    """A link on values of a panel; keeps time, data source, model and server."""
    return {"title": title, "targetBlank": False,
            "url": f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}&${{model:queryparam}}"
                   f"&${{instance:queryparam}}{variables}"}


def with_link(panel, link):
    panel["fieldConfig"]["defaults"]["links"] = [link]
    return panel


def row(title, panels, collapsed=False):
    return {"type": "row", "title": title, "collapsed": collapsed, "panels": panels}


def variable(name, label, metric, wanted, description):
    """Filled from the values of a label; all of them to begin with."""
    return {"type": "query", "name": name, "label": label, "description": description, "datasource": DATASOURCE,
            "query": {"query": f"label_values({metric}, {wanted})", "refId": name},
            "definition": f"label_values({metric}, {wanted})", "refresh": 2, "sort": 3, "multi": True,
            "includeAll": True, "allValue": "", "current": {"text": "All", "value": "$__all"}}


VARIABLES = [
    {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus",
     "description": "The Prometheus that scrapes the servers.", "current": {}},
    variable("model", "Model", "gatehouse_model_info", "model", "Models that are served."),
    variable("instance", "Server", 'gatehouse_model_info{model=~"$model"}', "instance",
             "Servers of these models, by the address that Prometheus scrapes."),
]


def annotation(name, expr, color, title):
    return {"name": name, "datasource": DATASOURCE, "enable": True, "iconColor": color, "expr": expr, "step": "15s",
            "titleFormat": title, "tagKeys": "instance"}


def _placed(rows):
    """The panels of all rows with ids and places, as Grafana keeps them: those of an open row stand beside it."""
    panels, y, last_id = [], 0, 0
    for section in rows:
        last_id += 1
        header = {**section, "id": last_id, "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}, "panels": []}
        panels.append(header)
        y, x, height = y + 1, 0, 0
        for panel in section["panels"]:
            last_id += 1
            size = panel["gridPos"]
            if x + size["w"] > WIDTH:
                x, y, height = 0, y + height, 0
            placed = {**panel, "id": last_id, "gridPos": {"x": x, "y": y, **size}}
            (header["panels"] if section["collapsed"] else panels).append(placed)
            x, height = x + size["w"], max(height, size["h"])
        y += 1 if section["collapsed"] else height
    return panels


def dashboard(uid, title, description, rows, variables=(), annotations=()):
    return {
        "uid": uid, "title": title, "description": description, "tags": ["gatehouse"], "schemaVersion": 39,
        "editable": False, "graphTooltip": 1, "refresh": "10s", "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser", "annotations": {"list": list(annotations)},
        "links": [{"type": "dashboards", "title": "Gatehouse", "tags": ["gatehouse"], "asDropdown": True,
                   "includeVars": True, "keepTime": True}],
        "templating": {"list": [*VARIABLES, *variables]}, "panels": _placed(rows),
    }

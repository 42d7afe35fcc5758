"""Panels of a dashboard, from queries with legends; units follow from the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard as DashboardBuilder
from grafana_foundation_sdk.builders.dashboard import DashboardLink, QueryVariable, Row
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from albireo.telemetry.catalogue import EPOCH, SLOTS_TOTAL
from albireo.telemetry.metric import Metric
from deploy.observability.queries import GROUP, MODEL, of_model, quantile

DATA = DataSourceRef(type_val="prometheus", uid="prometheus")
"""As grafana/provisioning/datasources names it."""
COLORS = {
    "t1": "#4c72b0",
    "t2": "#55a868",
    "t3": "#bdbdbd",
    "t4": "#dd8452",
    "t5": "#c44e52",
}
"""The colours of docs/trace.png."""
UNITS = {"s": "s", "By": "bytes", "W": "watt", "J": "joule", "1": "percentunit"}
UNITS_A_SECOND = {"J": "watt", "By": "binBps"}
SHARE = "percentunit"
TALL, LOW = 8, 4

Builder = timeseries.Panel | stat.Panel | bargauge.Panel | heatmap.Panel
Rows = dict[str, list[Builder]]
"""Panels of each row, by its title."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query and the legend of its lines; ``{{label}}`` is replaced by a label's value."""

    expression: str
    legend: str
    color: str = ""
    line: bool = False  # in a stacked panel: drawn over the stack


def unit(metric: Metric) -> str:
    """Grafana's unit of a metric's values."""
    return UNITS[metric.unit] if metric.unit in UNITS else f"suffix: {_things(metric)}"


def unit_a_second(metric: Metric) -> str:
    """Grafana's unit of a metric's increase per second."""
    return UNITS_A_SECOND.get(metric.unit, f"suffix: {_things(metric)}/s")


def _things(metric: Metric) -> str:
    thing = metric.unit.strip("{}")
    return thing.removesuffix("y") + "ies" if thing.endswith("ry") else f"{thing}s"


def lines(
    title: str,
    unit: str,
    description: str,
    *queries: Query,
    width: int = 8,
    stacked: bool = False,
    height: int = TALL,
) -> timeseries.Panel:
    """Lines over time; ``stacked``: stacked areas, except for queries with ``line``."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATA)
        .unit(unit)
        .min(0)
        .span(width)
        .height(height)
        .line_width(1 if stacked else 1.5)
        .fill_opacity(65 if stacked else 8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.NONE))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    for reference, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(_target(query, reference))
        look = []
        if query.color:
            look.append(DynamicConfigValue("color", {"mode": "fixed", "fixedColor": query.color}))
        if query.line:
            look += [
                DynamicConfigValue("custom.stacking", {"mode": "none"}),
                DynamicConfigValue("custom.fillOpacity", 0),
                DynamicConfigValue("custom.lineWidth", 3),
            ]
        if look:
            panel.override_by_query(reference, look)
    return panel


def number(
    title: str, unit: str, description: str, query: Query, *, width: int = 4, decimals: int = 1
) -> stat.Panel:
    """The last value, as a large number."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATA)
        .unit(unit)
        .decimals(decimals)
        .no_value("-")
        .span(width)
        .height(LOW)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(query, "A"))
    )


def bars(title: str, unit: str, description: str, *queries: Query, width: int = 8) -> bargauge.Panel:
    """One bar for each query, over the time shown."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(DATA)
        .unit(unit)
        .min(0)
        .span(width)
        .height(TALL)
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for reference, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(_target(query, reference).instant())
        panel.override_by_query(
            reference, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": query.color})]
        )
    return panel


def heat(title: str, unit: str, description: str, expression: str, *, width: int = 8) -> heatmap.Panel:
    """A heatmap: how many values fell into each bucket of a histogram, over time."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(DATA)
        .span(width)
        .height(TALL)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(32))
        .with_target(_target(Query(expression, "{{le}}"), "A").format(PromQueryFormat.HEATMAP))
    )


def _target(query: Query, reference: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(DATA)
        .expr(query.expression)
        .legend_format(query.legend)
        .ref_id(reference)
    )


def quantiles(metric: Metric, *shares: float, where: str = "") -> list[Query]:
    """One line for each quantile of a histogram."""
    return [Query(quantile(share, metric, where=where), f"p{share * 100:g}") for share in shares]


def dashboard(name: str, description: str, rows: Rows) -> Dashboard:
    """A dashboard with the variables and links that all of them share."""
    made = (
        DashboardBuilder(f"Albireo: {name}")
        .uid(f"albireo-{name}")
        .description(description)
        .tags(["albireo"])
        .readonly()
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(_links())
        .with_variable(_variable("model", MODEL, f"label_values({EPOCH.prometheus}, {MODEL})"))
        .with_variable(_variable("group", GROUP, f"label_values({of_model(SLOTS_TOTAL)}, {GROUP})"))
    )
    identity = 0
    for title, panels in rows.items():
        identity += 1
        made.with_row(Row(title).id(identity))
        for panel in panels:
            identity += 1
            made.with_panel(panel.id(identity))
    return made.build()


def _links() -> DashboardLink:
    """Links to the other dashboards."""
    link = DashboardLink("Albireo").type(DashboardLinkType.DASHBOARDS).tags(["albireo"])
    return link.include_vars(True).keep_time(True)


def _variable(name: str, label: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(name)
        .datasource(DATA)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )

"""A study as Prometheus metrics: the overview's numbers, and no more than it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric, StateSetMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PHASES = ("not started", "running", "publishing", "published", "failed", "interrupted", "killed")
_STATES = (
    "not enrolled", "absent", "connected", "working", "review", "done", "silent", "failed", "refused", "revoked",
    "not known",
)  # fmt: skip


def metrics_text(view: Mapping[str, Any]) -> bytes:
    """The overview in Prometheus's text format, from a registry of its own: nothing of the process is among it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Study(view))
    return generate_latest(registry)


class _Study(Collector):
    def __init__(self, view: Mapping[str, Any]) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Gauges of the study, of its stages, and of its sites. An epsilon without a bound is +Inf."""
        view = self._view
        labels = {"study": view["study"], "plan_hash": view["plan_hash"], "private": str(view["private"]).lower()}
        yield InfoMetricFamily("sfumato_study", "The study and its plan", value=labels)
        phase = StateSetMetricFamily("sfumato_phase", "What the coordinator's process does", labels=[])
        phase.add_metric([], {name: name == view["phase"] for name in _PHASES})
        yield phase
        for name, what, value in (
            ("sfumato_elapsed_seconds", "Time since this run began", view["elapsed_s"]),
            ("sfumato_left_seconds", "Time left, by exchanges of the same kind so far", view["left_s"]),
            ("sfumato_epsilon_spent", "Most that a patient paid, by the plan", _bound(view["epsilon_spent"])),
            ("sfumato_epsilon_budget", "What the plan allows", view["epsilon_budget"]),
            ("sfumato_exchanges", "Exchanges that ended in this run", len(view["exchanges"])),
            ("sfumato_sites_quorum", "Sites that an exchange needs", view["quorum"]),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, what, value=value)
        sent = GaugeMetricFamily("sfumato_array_bytes", "Bytes of arrays in this run", labels=["direction"])
        sent.add_metric(["down"], view["bytes_down"])
        sent.add_metric(["up"], view["bytes_up"])
        yield sent
        done = GaugeMetricFamily("sfumato_stage_rounds_done", "Rounds that ended", labels=["stage"])
        whole = GaugeMetricFamily("sfumato_stage_rounds", "Rounds of the plan", labels=["stage"])
        for row in view["stages"]:
            done.add_metric([row["stage"]], row["done"])
            whole.add_metric([row["stage"]], row["rounds"])
        yield done
        yield whole
        yield from self._sites()

    def _sites(self) -> Iterator[Metric]:
        states = StateSetMetricFamily("sfumato_site_state", "What a site does", labels=["site"])
        kinds = {
            "heard": ("sfumato_site_heard_timestamp_seconds", "When a site was last heard"),
            "epsilon": ("sfumato_site_epsilon", "Most that a patient of a site paid in this study"),
            "step": ("sfumato_site_step", "Step of the round, where the site's policy shows it"),
            "steps": ("sfumato_site_steps", "Steps of the round, where the site's policy shows it"),
        }
        gauges = {key: GaugeMetricFamily(name, what, labels=["site"]) for key, (name, what) in kinds.items()}
        for name, site in sorted(self._view["sites"].items()):
            states.add_metric([name], {state: state == site["state"] for state in _STATES})
            for key, gauge in gauges.items():
                value = _bound(site[key]) if key == "epsilon" else site[key]
                if value is not None:
                    gauge.add_metric([name], value)
        yield states
        yield from gauges.values()


def _bound(epsilon: float | None) -> float:
    return float("inf") if epsilon is None else epsilon

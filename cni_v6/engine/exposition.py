"""The metrics: their names, what they mean, and the text that Prometheus reads. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/, "Text-based format".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cni_v6.values import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """``of_engine``: only an engine has it."""

    kind: str
    meaning: str
    labels: tuple[str, ...] = ()
    of_engine: bool = False


METRICS: Mapping[str, Metric] = {
    "cni_v6_calls_total": Metric(
        COUNTER, "Calls that were answered; code is that of the error, 0 for none.",
        ("plugin", "command", "network", "code"), of_engine=True,
    ),
    "cni_v6_call_duration_seconds": Metric(
        HISTOGRAM, "Time from a request's arrival to its answer.", ("command",), of_engine=True,
    ),
    "cni_v6_step_duration_seconds": Metric(
        HISTOGRAM, "Time of each step of a call; the steps of a call add up to it.", ("command", "step"),
        of_engine=True,
    ),
    "cni_v6_reclaimed_total": Metric(
        COUNTER, "Attachments that were freed because their containers had ended without a DEL.", ("network",),
        of_engine=True,
    ),
    "cni_v6_events_total": Metric(
        COUNTER, "Repairs and other events between calls; cni-v6ctl watch shows them.", of_engine=True,
    ),
    "cni_v6_log_lost_total": Metric(
        COUNTER, "Lines that could not be written to the engine's log.", of_engine=True,
    ),
    "cni_v6_engine_info": Metric(GAUGE, "1; the version of the engine.", ("version",), of_engine=True),
    "cni_v6_engine_start_time_seconds": Metric(
        GAUGE, "When the engine was started, in seconds since the epoch.", of_engine=True,
    ),
    "cni_v6_engine_workers_busy": Metric(GAUGE, "Calls that are being handled.", of_engine=True),
    "cni_v6_engine_workers_max": Metric(GAUGE, "Calls that can be handled at a time.", of_engine=True),
    "cni_v6_engine_resident_memory_bytes": Metric(GAUGE, "Memory of the engine's process.", of_engine=True),
    "cni_v6_attachments": Metric(GAUGE, "Attachments on record.", ("network",)),
    "cni_v6_pool_addresses": Metric(GAUGE, "Addresses of a set of ranges.", ("network", "pool")),
    "cni_v6_pool_leased": Metric(GAUGE, "Addresses that containers have.", ("network", "pool")),
    "cni_v6_pool_waiting": Metric(
        GAUGE, "Released addresses that wait for ipam.reuseAfter, or for their turn.", ("network", "pool"),
    ),
    "cni_v6_pool_left": Metric(GAUGE, "Addresses that can still be given.", ("network", "pool")),
    "cni_v6_pool_use_per_second": Metric(
        GAUGE, "How fast addresses are used, since the oldest attachment.", ("network", "pool"),
    ),
    "cni_v6_pool_seconds_left": Metric(
        GAUGE, "How long a set that gives no address twice lasts at this rate.", ("network", "pool"),
    ),
    "cni_v6_firewall_elements": Metric(GAUGE, "Elements in the sets of the firewall's tables.", ("family", "set")),
    "cni_v6_dropped_packets_total": Metric(
        COUNTER, "Packets that a chain of the firewall's tables has dropped.", ("chain", "reason"),
    ),
    "cni_v6_container_dropped_packets_total": Metric(
        COUNTER, "Packets from or to a container that were dropped; gone ten minutes after the last one.",
        ("network", "container", "reason"),
    ),
    "cni_v6_egress_packets_total": Metric(
        COUNTER, "Packets, by network, to destinations that an egress list allows.", ("network",),
    ),
    "cni_v6_scrape_incomplete": Metric(
        GAUGE, "1 if some of the store or the kernel could not be read, or not in time.",
    ),
    "cni_v6_scrape_duration_seconds": Metric(GAUGE, "Time that reading the store and the kernel took."),
    "cni_v6_agent_up": Metric(GAUGE, "1 if the node's agent runs.", ("node",)),
    "cni_v6_agent_ready": Metric(GAUGE, "1 if the node has the configuration that its agent writes."),
    "cni_v6_agent_steps_total": Metric(COUNTER, "How often the agent has looked at the store and the kernel."),
    "cni_v6_agent_store_reached": Metric(
        GAUGE, "1 if the agent could read the cluster's store when it looked at last.",
    ),
    "cni_v6_agent_complaints": Metric(GAUGE, "What is in the agent's way, as a number; doctor has the words."),
    "cni_v6_cluster_nodes": Metric(GAUGE, "Nodes in the cluster's store."),
    "cni_v6_cluster_dropped_packets_total": Metric(
        COUNTER, "Packets that a table of the cluster's carrier has dropped.", ("table", "reason"),
    ),
    "cni_v6_block_leases": Metric(GAUGE, "Leases in a block of this node.", ("block",)),
    "cni_v6_block_room": Metric(GAUGE, "Containers that a block of this node has room for.", ("block",)),
    "cni_v6_node_answers": Metric(GAUGE, "1 if another node answers this one.", ("node", "family")),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """``labels``: the values, in the order of ``Metric.labels``. ``le``: of a bucket. ``suffix``: of a histogram."""

    name: str
    value: float
    labels: tuple[str, ...] = ()
    suffix: str = ""
    le: str = ""


def render(samples: Iterable[Sample]) -> str:
    """The text of some samples, metric by metric."""
    by_name: dict[str, list[Sample]] = {name: [] for name in METRICS}
    for sample in samples:
        by_name[sample.name].append(sample)
    return "".join(line + "\n" for name, group in by_name.items() if group for line in _family(name, group))


def parse(text: str) -> Iterator[Sample]:
    """The samples of a text that ``render`` made."""
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        front, _, value = line.rpartition(" ")
        name, _, rest = front.partition("{")
        labels = _labels(rest.removesuffix("}"))
        own = next((own for own in (name, *(name.removesuffix(suffix) for suffix in SUFFIXES)) if own in METRICS), "")
        if own:
            values = tuple(labels.get(label, "") for label in METRICS[own].labels)
            yield Sample(own, _value(value), values, name.removeprefix(own), labels.get("le", ""))


SUFFIXES = ("_bucket", "_sum", "_count")


def _family(name: str, samples: Sequence[Sample]) -> Iterator[str]:
    metric = METRICS[name]
    yield f"# HELP {name} {_escaped(metric.meaning, quotes=False)}"
    yield f"# TYPE {name} {metric.kind}"
    for sample in samples:
        pairs = [*zip(metric.labels, sample.labels, strict=True), *([("le", sample.le)] if sample.le else [])]
        labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in pairs)
        yield f"{name}{sample.suffix}{{{labels}}} {_number(sample.value)}" if labels else (
            f"{name}{sample.suffix} {_number(sample.value)}"
        )


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _labels(text: str) -> dict[str, str]:
    found, at = {}, 0
    while at < len(text):
        name, _, _ = text[at:].partition("=")
        at += len(name) + 2
        value = ""
        while text[at] != '"':
            if text[at] == "\\":
                at += 1
                value += {"n": "\n"}.get(text[at], text[at])
            else:
                value += text[at]
            at += 1
        found[name] = value
        at += 2
    return found


def _value(text: str) -> float:
    """A whole number as an integer: not every reader of JSON takes 3.0 for 3."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))

"""A step of a packet's way, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cni_v6.ctl import screen
from cni_v6.ctl.output import Output, Schema, object_of, text, texts, whole
from cni_v6.plan import journey
from cni_v6.plan.journey import Step

KEYS: Mapping[str, Schema] = {
    "hook": text("of the base chain"), "family": text("of its table"), "table": text("its name"),
    "chain": text("its name"), "verdict": text("drop, accept or another of nft's"),
    "by": text("the chain that decided"), "rule": text("that decided; empty for the policy"),
    "rules": texts("that matched before"), "in": text("interface; empty for none"),
    "out": text("interface; empty for none"), "source": text("address"), "destination": text("address"),
    "packet": text("its headers"), "why": text("it is dropped; empty if it is not"),
}
WATCHED = Output(object_of({"why": KEYS["why"]}, {
    **KEYS, "number": whole("of the packet"), "kernelDrop": text("instead of a step: why the kernel has dropped one"),
    "function": text("of the kernel that has dropped it"),
}), lines=True)


def lines(step: Step, *, every: bool) -> Iterator[str]:
    """A chain, what it does with the packet, and by which rule; or with ``every`` rule that matched."""
    where = " ".join(filter(None, (f"in {step.iif}" if step.iif else "", f"out {step.oif}" if step.oif else "")))
    verdict = "DROP" if step.verdict == journey.DROP else step.verdict
    words = f"{step.base[0]} {step.base[1]} {step.base[2]}: {verdict}{f'  ({where})' if where else ''}"
    yield from screen.wrapped(f"  {step.hook}", words, 14)
    for rule in (*(step.way if every else ()), *([step.rule] if step.rule else [])):
        yield from screen.wrapped(" " * 16, rule, 18)


def document(step: Step) -> Mapping[str, object]:
    return {
        "hook": step.hook, "family": step.base[0], "table": step.base[1], "chain": step.base[2],
        "verdict": step.verdict, "by": step.last, "rule": step.rule, "rules": list(step.way), "in": step.iif,
        "out": step.oif, "source": step.headers.source, "destination": step.headers.target,
        "packet": str(step.headers), "why": journey.dropped(step),
    }

"""``cni-v6ctl metrics``: what the engine has counted and what the node has, as Prometheus reads it."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni_v6 import wire
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.ctl import conf_dir
from cni_v6.ctl.agent_metrics import of_agent
from cni_v6.ctl.engine import sockets
from cni_v6.ctl.output import Output, listed, mapped, number, object_of, text
from cni_v6.engine import suspect
from cni_v6.engine.exposition import METRICS, Sample, parse, render
from cni_v6.engine.handle import real_context
from cni_v6.engine.metrics import socket_beside
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, TRY_AGAIN, CniError
from cni_v6.kernel import whole_file
from cni_v6.kernel.privilege import needs_root
from cni_v6.shim import try_connect

SUFFIX = ".prom"  # node_exporter's textfile collector reads no other files
MOST_BYTES = 64 << 20
OUTPUTS = {"metrics": Output(listed(object_of({
    "name": text("of the metric; of a histogram with _bucket, _sum or _count"),
    "labels": mapped(text("its value"), "by name"), "value": number("its value"),
}), "the samples"))}


def register(commands: Any) -> None:
    parser = commands.add_parser("metrics", help="print calls, latencies, pools, drops, for Prometheus")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--textfile", type=Path, metavar="FILE", help="write them to a file *.prom, for node_exporter")
    form.add_argument("--json", action="store_true", help="a list of objects")
    parser.add_argument("--conf-dir", type=Path, default=conf_dir.CONF_DIR, metavar="DIR",
                        help="of the networks, without an engine (default: %(default)s)")
    parser.set_defaults(run=run, root=True)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    if chosen.textfile and chosen.textfile.suffix != SUFFIX:
        words = f"--textfile {chosen.textfile} does not end with {SUFFIX}"
        raise CniError(INVALID_CONFIG, words, "node_exporter reads no other files in its textfile folder")
    exposed, from_engine = read(chosen.conf_dir, make_node)
    exposed += render(of_agent())
    if not from_engine:
        print("cni-v6ctl: no engine runs: only what the store and the kernel have", file=sys.stderr)
    if chosen.textfile:
        _replace(chosen.textfile, exposed)
    elif chosen.json:
        OUTPUTS["metrics"].show([document(sample) for sample in parse(exposed)])
    else:
        print(exposed, end="")
    return 0


def read(folder: Path, make_node: Callable[[], Context]) -> tuple[str, bool]:
    """The metrics as text, and whether they are an engine's. Without one, they are read here.

    :param folder: of the configurations, without an engine.
    """
    for path in sockets():
        connection = try_connect(os.fsencode(socket_beside(os.fsdecode(path))))
        if connection:
            return ask(connection.detach(), path), True
    from cni_v6.engine.scrape import Scraper

    return render(Scraper(make_node, lambda context: configurations(folder, context)).samples()), False


def configurations(folder: Path, context: Context) -> Iterator[IpamConf]:
    """The address configurations of the networks in a folder; none if it cannot be read."""
    with suppress(CniError):
        for _, config in conf_dir.ours(folder):
            with suppress(CniError):  # an ADD would say what is wrong with it
                conf = conf_dir.ipam(config, context)
                yield from [conf] if conf else []


def document(sample: Sample) -> dict[str, object]:
    labels = dict(zip(METRICS[sample.name].labels, sample.labels))
    return {"name": sample.name + sample.suffix, "labels": labels | ({"le": sample.le} if sample.le else {}),
            "value": sample.value}


def ask(descriptor: int, path: bytes) -> str:
    """The metrics of the engine that listens at ``path``.

    :param descriptor: a connection to its metrics.
    """
    with socket.socket(fileno=descriptor) as connection:
        connection.settimeout(wire.ASK_SECONDS)
        data = b""
        try:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            while (part := connection.recv(1 << 16)) and len(data) < MOST_BYTES:
                data += part
        except OSError as error:
            words = f"the engine does not tell its metrics: {error}"
            raise CniError(TRY_AGAIN, words, suspect.advice(path)) from error
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise CniError(TRY_AGAIN, "the engine does not tell its metrics", suspect.advice(path))
    if b"Content-Length: %d" % len(body) not in head.split(b"\r\n"):
        raise CniError(TRY_AGAIN, "the engine has not told all of its metrics", suspect.advice(path))
    return body.decode()


def _replace(path: Path, exposed: str) -> None:
    """Write a file that its reader sees whole: the old one or the new one.

    :raises CniError: IO_FAILURE.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")  # it does not end with SUFFIX
    try:
        # node_exporter is another user
        whole_file.replace(str(path), exposed.encode(), str(aside), 0o644)
    except OSError as error:
        raise CniError(IO_FAILURE, f"{needs_root(error)}cannot write {path}", str(error)) from error

"""Times and numbers on the command line that commands which wait would not survive, or not understand."""

from __future__ import annotations

import argparse
import os
import signal
import socket
from math import inf, nan

import pytest

from cni_v6 import errors
from cni_v6.ctl import connectivity, top, trace
from cni_v6.ctl.waiting import Interrupted, check_seconds, interruptible
from cni_v6.errors import CniError


@pytest.mark.parametrize("seconds", [nan, inf, -1.0, 0.0, 3601.0])
def test_a_time_that_is_none(seconds: float) -> None:
    with pytest.raises(CniError, match="^--timeout .* is not between 0.1 and 3600") as raised:
        check_seconds("--timeout", seconds)
    assert raised.value.code == errors.INVALID_CONFIG


def test_a_time() -> None:
    check_seconds("--timeout", 0.1)
    check_seconds("--timeout", 3600)


def chosen(commands: str, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module = {"connectivity": connectivity, "top": top, "trace": trace}[commands]
    module.register(parser.add_subparsers())
    return parser.parse_args([commands, *arguments])


@pytest.mark.parametrize(("arguments", "says"), [
    (("trace", "c1", "--timeout", "inf"), "--timeout inf"),
    (("connectivity", "pods", "--timeout", "nan"), "--timeout nan"),
    (("top", "--interval", "inf"), "--interval inf"), (("trace", "c1", "--count", "0"), "--count 0"),
    (("trace", "c1", "--count", "-1"), "--count -1"),
])
def test_commands_refuse_it_before_they_look_at_the_node(arguments: tuple[str, ...], says: str) -> None:
    wanted = chosen(*arguments)
    with pytest.raises(CniError, match=says) as raised:
        wanted.run(wanted)
    assert raised.value.code == errors.INVALID_CONFIG


@pytest.mark.timeout(60)
def test_what_comes_without_end_is_waited_for_no_longer() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, interruptible() as waiting:
        theirs.send(b"first")
        for part in waiting.received(ours, 0.0):
            assert part == b"first"
            theirs.send(b"another")


def test_a_signal_ends_a_wait_but_one_that_is_ignored() -> None:
    """As nohup(1) starts a command."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as waiting:
            os.kill(os.getpid(), signal.SIGHUP)
            waiting.check()
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted):
                waiting.ready_files((), None)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)

"""One failure as it is, several together, and the lines an operation has to say."""

from __future__ import annotations

import pytest

from cni_v6 import errors
from cni_v6.errors import CniError, Errors
from cni_v6.log import Log


def failing(code: int, msg: str, details: str = "") -> None:
    raise CniError(code, msg, details)


def test_an_error_reads_as_a_sentence() -> None:
    assert str(CniError(7, "name is missing", "give it one")) == "name is missing: give it one"
    assert str(CniError(7, "name is missing")) == "name is missing"


def test_codes_are_all_different() -> None:
    codes = [value for name, value in vars(errors).items() if name.isupper()]
    assert len(codes) == len(set(codes))
    assert all(0 < code <= 199 for code in codes)


def test_no_failure() -> None:
    caught = Errors()
    caught.run(list)
    caught.check()
    assert caught.caught == []


def test_the_only_failure_is_raised_as_it_is() -> None:
    caught, done = Errors(), []
    caught.run(lambda: failing(5, "first"))
    caught.run(lambda: done.append(1))
    with pytest.raises(CniError, match="^first$") as found:
        caught.check()
    assert (found.value.code, done) == (5, [1])


def test_several_failures_are_raised_as_one() -> None:
    caught = Errors()
    caught.run(lambda: failing(100, "cannot do this", "No such device"))
    caught.run(lambda: failing(5, "nor that"))
    with pytest.raises(CniError) as found:
        caught.check()
    assert found.value.code == 100
    assert found.value.msg == "2 steps failed"
    assert found.value.details == "cannot do this: No such device; nor that"


def test_a_bug_is_no_failure_to_collect() -> None:
    with pytest.raises(ZeroDivisionError):
        Errors().run(lambda: 1 // 0)


def test_log() -> None:
    log = Log("cni-v6 ADD pods/a/eth0")
    assert log.text() == ""
    log.info("removed x")
    log.warning("prevResult ignored")
    assert log.text() == "cni-v6 ADD pods/a/eth0: removed x\ncni-v6 ADD pods/a/eth0: warning: prevResult ignored\n"

"""The node that most contract tests are about, of either kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.kernels import KernelTestbed, fake_testbed, linux_testbed


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.netns)])
def testbed(request: pytest.FixtureRequest) -> Iterator[KernelTestbed]:
    if request.param == "fake":
        yield fake_testbed()
        return
    with linux_testbed() as made:
        yield made

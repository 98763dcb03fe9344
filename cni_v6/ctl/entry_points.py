"""The commands that ``pip install`` makes of this package.

pip writes a script of its own for each, which imports more than the executables in ``bin/`` and runs in the
environment's Python as it is. Where a runtime starts the plugins for every container, ``make install`` is faster.
"""

from __future__ import annotations


def bridge() -> int:
    """``cni-v6``."""
    from cni_v6 import shim

    return shim.main("cni-v6")


def ipam() -> int:
    """``cni-v6-ipam``."""
    from cni_v6 import shim

    return shim.main("cni-v6-ipam")


def ctl() -> int:
    """``cni-v6ctl``."""
    from cni_v6 import ctl as command
    from cni_v6.engine.inprocess import leave_interrupts_to_the_kernel

    leave_interrupts_to_the_kernel()
    return command.main()

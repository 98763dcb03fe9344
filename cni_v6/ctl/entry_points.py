"""The commands that ``pip install`` creates for this package.

pip writes a script for each. It imports more than the executables in ``bin/`` do, and runs in the Python of the
environment. ``make install`` is faster if a runtime starts the plugins for every container.
"""

from __future__ import annotations


def bridge() -> int:
    """``cni-v6``."""
    from cni_v6 import shim

    return shim.main("cni-v6")


def routed() -> int:
    """``cni-v6-routed``."""
    from cni_v6 import shim

    return shim.main("cni-v6-routed")


def macvlan() -> int:
    """``cni-v6-macvlan``."""
    from cni_v6 import shim

    return shim.main("cni-v6-macvlan")


def ipvlan() -> int:
    """``cni-v6-ipvlan``."""
    from cni_v6 import shim

    return shim.main("cni-v6-ipvlan")


def vlan() -> int:
    """``cni-v6-vlan``."""
    from cni_v6 import shim

    return shim.main("cni-v6-vlan")


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

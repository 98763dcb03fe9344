"""Networks without a firewall: the user-mode kernel's modules lack nft_nat and nft_chain_nat."""

from __future__ import annotations

from functools import partial

from tests.netns import networks

network = partial(networks.network, ingress="open", guard=False)
gateway = partial(networks.gateway, ingress="open", guard=False)

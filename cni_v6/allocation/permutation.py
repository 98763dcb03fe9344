"""A random permutation of numbers that needs no memory and can be inverted. Pure.

A set that hands out every address once, in random order, needs only a key and a count as its state. Whether an address
has been handed out is computed; no list is kept.

The permutation is a Feistel network of keyed hashes (Luby and Rackoff, 1988) on the next even number of bits. It is
applied again until the result is below the size (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite
Domains", 2002). It has ten rounds, as NIST SP 800-38G has for the same construction. Without the key it is
indistinguishable from a random order.
"""

from __future__ import annotations

from hashlib import blake2s

from cni_v6.values import dataclass

KEY_BYTES = 16
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Shuffle:
    """The numbers from 0 to ``size`` - 1 in an order that ``key`` (``KEY_BYTES`` of randomness) decides."""

    key: bytes
    size: int

    def at(self, index: int) -> int:
        """The number at a position of the order."""
        value = self._forward(index)
        while value >= self.size:
            value = self._forward(value)
        return value

    def place(self, number: int) -> int:
        """The position of a number in the order."""
        index = self._backward(number)
        while index >= self.size:
            index = self._backward(index)
        return index

    def _forward(self, value: int) -> int:
        half = self._half()
        left, right = value >> half, value & (1 << half) - 1
        for number in range(_ROUNDS):
            left, right = right, left ^ self._round(number, right, half)
        return left << half | right

    def _backward(self, value: int) -> int:
        half = self._half()
        left, right = value >> half, value & (1 << half) - 1
        for number in reversed(range(_ROUNDS)):
            left, right = right ^ self._round(number, left, half), left
        return left << half | right

    def _half(self) -> int:
        """Half of the network's bits. Its domain is less than four times ``size``, which bounds the cycle walk."""
        return max(1, ((self.size - 1).bit_length() + 1) // 2)

    def _round(self, number: int, value: int, half: int) -> int:
        digest = blake2s(value.to_bytes(16, "big"), key=self.key, person=bytes([number])).digest()
        return int.from_bytes(digest, "big") & (1 << half) - 1

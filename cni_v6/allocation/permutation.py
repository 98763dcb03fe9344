"""A random order of numbers that can be walked in either direction and needs no memory. Pure.

So a set whose addresses are handed out at random, none of them twice, is kept by a key and a count, as one that is
handed out in sequence is; and whether an address has been handed out is answered without a list of those that were.

The order is a permutation by a Feistel network of keyed hashes (Luby and Rackoff, 1988) on the next even number of
bits, walked until it falls within the size (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). Ten
rounds, as NIST SP 800-38G has for the same construction. Without the key it cannot be told from one drawn by lot.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2s

KEY_BYTES = 16
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Shuffle:
    """The numbers from 0 to ``size`` - 1 in an order that ``key`` (``KEY_BYTES`` of randomness) decides."""

    key: bytes
    size: int

    def at(self, index: int) -> int:
        """The number at a place of the order."""
        value = self._forward(index)
        while value >= self.size:
            value = self._forward(value)
        return value

    def place(self, number: int) -> int:
        """Where in the order a number stands."""
        index = self._backward(number)
        while index >= self.size:
            index = self._backward(index)
        return index

    def _forward(self, value: int) -> int:
        half = self._half()
        left, right = value >> half, value & (1 << half) - 1
        for turn in range(_ROUNDS):
            left, right = right, left ^ self._round(turn, right, half)
        return left << half | right

    def _backward(self, value: int) -> int:
        half = self._half()
        left, right = value >> half, value & (1 << half) - 1
        for turn in reversed(range(_ROUNDS)):
            left, right = right ^ self._round(turn, left, half), left
        return left << half | right

    def _half(self) -> int:
        """Half of the bits that the network works on: fewer than four numbers of it for each that counts."""
        return max(1, ((self.size - 1).bit_length() + 1) // 2)

    def _round(self, turn: int, value: int, half: int) -> int:
        digest = blake2s(value.to_bytes(16, "big"), key=self.key, person=bytes([turn])).digest()
        return int.from_bytes(digest, "big") & (1 << half) - 1

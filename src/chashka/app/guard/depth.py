"""How deep the JSON of a body is nested, counted while it arrives: what is read later calls itself for every level."""

from __future__ import annotations

import re
from itertools import accumulate

DEEPEST = 32
"""Levels of objects and lists, the outermost one among them."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
"""A text, or what has come of it so far: the end of the body's part ends it as well, so that nothing is looked at twice."""
_END = b"\x01"
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_OTHERS = bytes(sorted(set(range(256)) - set(b"[{]}")))


class Depth:
    """Takes a body part by part. What is no JSON is counted as well as it goes; whoever reads it refuses it."""

    def __init__(self) -> None:
        self.deepest = 0
        self._now = 0
        self._begun = b""

    def feed(self, part: bytes) -> None:
        """The next part; ``deepest`` is the most that was seen."""
        text = self._begun + part
        outside = _STRING.sub(b"", text + _END)  # a text that is not over yet swallows the mark
        over = outside.endswith(_END)
        odd = (len(text) - len(text.rstrip(b"\\"))) % 2
        self._begun = b"" if over else b'"\\' if odd else b'"'
        steps = memoryview(outside.translate(_STEPS, _OTHERS)).cast("b")
        for level in accumulate(steps, initial=self._now):
            self._now = level
            if level > self.deepest:
                self.deepest = level
                if level > DEEPEST:
                    return

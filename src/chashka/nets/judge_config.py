"""The configuration of the judge's network. No torch is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from chashka.errors import InputError
from chashka.nets import checks


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """The detector that judges drawings: RGBA of ``side`` pixels → centres, boxes and masks on a grid of ``side`` / 4 places.

    ``classes`` things, and one class more for what is none of them. ``width`` channels on the grid, twice and four times as
    many at half and at a quarter of it, with ``blocks`` residual blocks there.
    """

    classes: int = 99
    in_channels: int = 4
    side: int = 128
    width: int = 64
    blocks: int = 2
    norm_groups: int = 8

    def __post_init__(self) -> None:
        checks.positive(self, "classes", "in_channels", "side", "width", "blocks", "norm_groups")
        checks.divides(self, "norm_groups", "width")
        if self.side % 16 or self.width % (2 * self.norm_groups):
            raise InputError(
                f"{checks.name(self)}: side is {self.side} and width {self.width}; side must be a multiple of 16 and half of"
                f" width one of norm_groups ({self.norm_groups})"
            )

    @property
    def grid(self) -> int:
        """Places along each side of what the network says."""
        return self.side // 4


JUDGE = JudgeConfig()

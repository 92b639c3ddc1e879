"""From a bundle and a request to pictures (docs/modes.md)."""

from chashka.generate.frames import Frame, frame_for
from chashka.generate.loop import Progress, samplers
from chashka.generate.passes import draw, generate

__all__ = ["Frame", "Progress", "draw", "frame_for", "generate", "samplers"]

"""``<lora:name:0.8>`` in prompts (AUTOMATIC1111's wiki, "Features: Extra networks")."""

from __future__ import annotations

import re
from dataclasses import dataclass

TAG = re.compile(r"<lora:([^:<>]+)(?::([-+]?\d*\.?\d+))?(?::[^<>]*)?>")


@dataclass(frozen=True, slots=True)
class Tag:
    """A LoRA by name, and how much of it."""

    name: str
    weight: float = 1.0


def taken_out(prompt: str) -> tuple[str, list[Tag]]:
    """The prompt without its tags, and the tags; of equal names the last counts."""
    found = {m.group(1).strip(): Tag(m.group(1).strip(), float(m.group(2) or 1.0)) for m in TAG.finditer(prompt)}
    return " ".join(TAG.sub(" ", prompt).split()) if found else prompt, list(found.values())

"""The texts of A1111's world: ``parameters`` of pictures (infotext), and the file of styles."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path
from typing import Any

from chashka.app.dialects.a1111_fields import CLIP_SKIP, Drawing, TextToImage
from chashka.app.dialects.fields import parsed
from chashka.images.foreign import LONGEST_RAW, pairs_of, parameters_of

STYLES = "styles.csv"
"""A1111's own file of styles, looked for in the data folder: columns name, prompt, negative_prompt."""
_MOST_STYLES = 1_000
_SETTINGS = {"Clip skip": CLIP_SKIP, "VAE": "sd_vae"}
"""What stands among the settings of a request."""
_CHECKED = ("Model", "Model hash", "VAE hash")
"""What is looked for on this server (a1111_models.py)."""
_FIELDS = {
    "Steps": "steps",
    "Sampler": "sampler_name",
    "Schedule type": "scheduler",
    "CFG scale": "cfg_scale",
    "Seed": "seed",
    "Picture": "first",
    "Denoising strength": "denoising_strength",
    "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength",
    "Hires upscale": "hr_scale",
    "Hires steps": "hr_second_pass_steps",
}


def parameters(text: str) -> dict[str, str]:
    """What the text says by A1111's names: "Prompt", "Negative prompt", "Steps", …; "Size-1" and "Size-2" are width and height."""
    known = parameters_of(text[:LONGEST_RAW])
    if known is None:
        return {"Prompt": text.strip()[:LONGEST_RAW], "Negative prompt": ""}
    said = {"Prompt": known.prompt, "Negative prompt": known.negative_prompt}
    said |= dict(pairs_of(text[:LONGEST_RAW].strip().split("\n")[-1]))
    return said | ({"Size-1": str(known.width), "Size-2": str(known.height)} if known.width and known.height else {})


def completed(body: Drawing, warnings: list[str]) -> Drawing:
    """The request with what its ``infotext`` says; its own fields win."""
    if not body.infotext:
        return body
    said = parameters(body.infotext)
    values: dict[str, Any] = {"prompt": said["Prompt"], "negative_prompt": said["Negative prompt"]}
    values |= {ours: said[theirs] for theirs, ours in _FIELDS.items() if theirs in said}
    if "Size-1" in said:
        values |= {"width": said["Size-1"], "height": said["Size-2"]}
    if "hr_scale" in values:
        values["enable_hr"] = True
    known = {name: value for name, value in values.items() if name in type(body).model_fields}
    if not isinstance(body, TextToImage):
        known.pop("enable_hr", None)
    read = {"Prompt", "Negative prompt", "Size", "Size-1", "Size-2", "Version", *_CHECKED, *_SETTINGS, *_FIELDS}
    left_out = sorted(set(said) - read)
    if left_out:
        warnings.append(f"infotext: {', '.join(left_out)[:200]} had no effect")
    own = body.said() | dict(body.model_extra or {})
    settings = {ours: said[theirs] for theirs, ours in _SETTINGS.items() if theirs in said}
    if settings:
        own["override_settings"] = settings | (body.override_settings or {})
    return parsed(type(body), known | own)


def styles(folder: Path) -> list[dict[str, str]]:
    """The styles in the data folder's file, in its order; none if there is no such file, or it cannot be read."""
    try:
        text = (folder / STYLES).read_text(encoding="utf-8-sig")[: 1 << 20]
    except (OSError, UnicodeDecodeError):
        return []
    found: list[dict[str, str]] = []
    with contextlib.suppress(csv.Error):
        for row in csv.DictReader(io.StringIO(text)):
            if row.get("name") and len(found) < _MOST_STYLES:
                found.append({name: row.get(name) or "" for name in ("name", "prompt", "negative_prompt")})
    return found


def styled(said: dict[str, Any], names: list[str], known: list[dict[str, str]], warnings: list[str]) -> dict[str, Any]:
    """A request's prompts with those of its styles: in place of ``{prompt}`` in a style, or behind a comma."""
    by_name = {style["name"]: style for style in known}
    for name in names:
        style = by_name.get(name)
        if style is None:
            warnings.append(f"styles: {name[:60]!r} is not among the styles of this server; it had no effect")
            continue
        said = said | {field: _joined(said[field], style[field]) for field in ("prompt", "negative_prompt")}
    return said


def _joined(text: str, style: str) -> str:
    if "{prompt}" in style:
        return style.replace("{prompt}", text)
    return ", ".join(part for part in (text.strip(), style.strip()) if part)

"""What other programs' pictures say about themselves: AUTOMATIC1111 and its kin, ComfyUI, InvokeAI, Fooocus, NovelAI.

Every format becomes one :class:`Foreign`. Nothing raises for damaged metadata, no XML is parsed, and everything is bounded, since
anything can stand in a file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from chashka.images import comfy_graph
from chashka.images.carried import texts_in
from chashka.request import LONGEST_PROMPT

LONGEST_RAW = 32_000
"""Characters of each original text that are kept."""
_LONGEST_KEY = 60
_NEGATIVE = "Negative prompt:"
_DREAM = re.compile(r"\s-([A-Za-z]) ?(\S{1,100})")


@dataclass(frozen=True, slots=True)
class Foreign:
    """One picture's settings, as far as they are known. program: who made it. raw: the original texts by key, long ones cut."""

    program: str
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    sampler: str = ""
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    model: str = ""
    raw: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything that is known, for storing."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    def parameters(self) -> str:
        """The same as AUTOMATIC1111's text: the original one if there is one."""
        if "parameters" in self.raw and not self.raw["parameters"].lstrip().startswith("{"):
            return self.raw["parameters"]
        size = f"{self.width}x{self.height}" if self.width and self.height else None
        scale = None if self.guidance_scale is None else f"{self.guidance_scale:g}"
        pairs = {
            "Steps": self.steps,
            "Sampler": self.sampler or None,
            "CFG scale": scale,
            "Seed": self.seed,
            "Size": size,
        }
        pairs |= {"Model": self.model or None, "Version": self.program}
        said = {key: str(value) for key, value in pairs.items() if value is not None}
        line = ", ".join(f"{key}: {_quoted(value)}" for key, value in said.items())
        negative = f"{_NEGATIVE} {self.negative_prompt}\n" if self.negative_prompt else ""
        return f"{self.prompt}\n{negative}{line}"


def read_foreign(data: bytes) -> Foreign | None:
    """What a PNG, JPEG or WebP file says in another program's format; None if nothing is known of it. Never raises."""
    texts = texts_in(data)
    for reader in (_novelai, _invokeai, _fooocus, _automatic, _comfyui):
        try:
            found = reader(texts)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            continue  # not what it looked like
        if found is not None:
            return found
    return None


def parameters_of(text: str) -> Foreign | None:
    """AUTOMATIC1111's ``parameters``; None if ``text`` is no such text."""
    lines = text.strip().split("\n")
    pairs = dict(pairs_of(lines[-1]))
    if len(pairs) < 3:
        return None
    prompt, negative, target = list[str](), list[str](), None
    for line in lines[:-1]:
        if target is None and line.startswith(_NEGATIVE):
            target = negative
            line = line[len(_NEGATIVE) :].removeprefix(" ")
        (prompt if target is None else target).append(line)
    version = pairs.get("Version", "")
    width, _, height = pairs.get("Size", "").partition("x")
    values = {
        "prompt": "\n".join(prompt),
        "negative_prompt": "\n".join(negative),
        "seed": pairs.get("Seed"),
        "steps": pairs.get("Steps"),
        "sampler": pairs.get("Sampler"),
        "guidance_scale": pairs.get("CFG scale", pairs.get("Guidance")),
        "width": width,
        "height": height,
        "model": pairs.get("Model"),
    }
    return _of(_program(version, pairs), values, {})


def pairs_of(line: str) -> Iterator[tuple[str, str]]:
    """``Key: value, Key: "quoted, value"`` in linear time, whatever the line is."""
    at, line = 0, line[:LONGEST_RAW]
    while at < len(line):
        colon = line.find(":", at, at + _LONGEST_KEY)
        key = line[at:colon].strip() if colon >= 0 else ""
        start = colon + 1 + (line[colon + 1 : colon + 2] == " ")
        end, value = _value(line, start) if key and "," not in key else (line.find(",", at), None)
        if value is not None:
            yield key, value
        if end < 0:
            return
        at = end + 1


def _value(line: str, start: int) -> tuple[int, str]:
    """(where the comma is behind the value, or -1, the value)."""
    if line[start : start + 1] == '"':
        at = start + 1
        while at < len(line) and line[at] != '"':
            at += 2 if line[at] == "\\" else 1
        text = line[start : at + 1]
        try:
            value = json.loads(text)
            return line.find(",", at), value if isinstance(value, str) else text
        except ValueError:
            pass
    end = line.find(",", start)
    return end, line[start : end if end >= 0 else len(line)].strip()


def _automatic(texts: Mapping[str, str]) -> Foreign | None:
    text = texts.get("parameters") or texts.get("UserComment") or texts.get("Comment") or ""
    found = parameters_of(text)
    if found is not None and "prompt" in texts and found.program == "AUTOMATIC1111":
        found = replace(found, program="ComfyUI")  # a node that writes both
    return None if found is None else replace(found, raw={"parameters": text[:LONGEST_RAW]})


def _program(version: str, pairs: Mapping[str, str]) -> str:
    """Who writes AUTOMATIC1111's text with this version."""
    if version.startswith(("ComfyUI", "stable-diffusion.cpp", "chashka", "Fooocus")):
        return version.partition(" ")[0]
    if "SD.Next" in version or "App" in pairs:
        return pairs.get("App", "SD.Next")[:40]
    return "Forge" if re.match(r"f\d", version) else "AUTOMATIC1111"


def _comfyui(texts: Mapping[str, str]) -> Foreign | None:
    """PNG chunks ``prompt`` and ``workflow``; WebP: EXIF Model and Make with the key in front."""
    text = texts.get("prompt") or texts.get("Model", "").partition("prompt:")[2]
    if not text:
        return None
    graph = json.loads(text)
    if not comfy_graph.is_graph(graph):
        return None
    said = comfy_graph.settings(graph)
    raw = {"prompt": text[:LONGEST_RAW]}
    workflow = texts.get("workflow") or texts.get("Make", "").partition("workflow:")[2]
    return _of("ComfyUI", said, raw | ({"workflow": workflow[:LONGEST_RAW]} if workflow else {}))


def _invokeai(texts: Mapping[str, str]) -> Foreign | None:
    if "invokeai_metadata" in texts:
        said = json.loads(texts["invokeai_metadata"])
        model = said.get("model")
        if isinstance(model, dict):
            model = model.get("name") or model.get("model_name")
        names = {"prompt": "positive_prompt", "sampler": "scheduler", "guidance_scale": "cfg_scale"}
        values = dict(said) | {name: said.get(key) for name, key in names.items()} | {"model": model}
        return _of("InvokeAI", values, _raw(texts, "invokeai_metadata"))
    if "sd-metadata" in texts:
        whole = json.loads(texts["sd-metadata"])
        said = whole["image"]
        prompts = said.get("prompt")
        if isinstance(prompts, list):
            prompts = " ".join(_text(one.get("prompt")) for one in prompts[:20])
        prompt, negative = _bracketed(_text(prompts))
        values = said | {"prompt": prompt, "negative_prompt": negative, "guidance_scale": said.get("cfg_scale")}
        return _of("InvokeAI", values | {"model": whole.get("model_weights")}, _raw(texts, "sd-metadata"))
    if "Dream" in texts:
        text = texts["Dream"][:LONGEST_RAW]
        inside, quote, rest = text.removeprefix('"').rpartition('"')
        said = dict(_DREAM.findall(rest)) if quote else {}
        prompt, negative = _bracketed(inside)
        names = {"s": "steps", "S": "seed", "W": "width", "H": "height", "C": "guidance_scale", "A": "sampler"}
        values = {name: said.get(letter) for letter, name in names.items()}
        return _of("InvokeAI", values | {"prompt": prompt, "negative_prompt": negative}, _raw(texts, "Dream"))
    return None


def _bracketed(text: str) -> tuple[str, str]:
    """InvokeAI's older way: what is in [brackets] is not wanted."""
    negative = re.findall(r"\[([^\[\]]*)\]", text)
    return re.sub(r"\[[^\[\]]*\]", "", text).strip(" ,"), ", ".join(part.strip(" ,") for part in negative)


def _fooocus(texts: Mapping[str, str]) -> Foreign | None:
    text = texts.get("parameters") or texts.get("UserComment") or ""
    scheme = texts.get("fooocus_scheme") or texts.get("MakerNote", "")
    if scheme == "a1111":
        found = parameters_of(text)
        return None if found is None else replace(found, program="Fooocus", raw={"parameters": text[:LONGEST_RAW]})
    if not text.lstrip().startswith("{"):
        return None
    said = json.loads(text)
    if scheme != "fooocus" and "base_model" not in said:
        return None
    sides = re.findall(r"\d{1,6}", _text(said.get("resolution")))
    width, height = sides if len(sides) == 2 else (said.get("width"), said.get("height"))
    values = said | {"model": said.get("base_model"), "width": width, "height": height}
    return _of("Fooocus", values, {"parameters": text[:LONGEST_RAW]})


def _novelai(texts: Mapping[str, str]) -> Foreign | None:
    if not texts.get("Software", "").startswith("NovelAI") or "Comment" not in texts:
        return None
    said = json.loads(texts["Comment"])
    names = {"negative_prompt": "uc", "guidance_scale": "scale"}
    values = dict(said) | {name: said.get(key) for name, key in names.items()}
    values |= {"prompt": texts.get("Description") or said.get("prompt"), "model": texts.get("Source")}
    return _of("NovelAI", values, _raw(texts, "Comment", "Source"))


def _of(program: str, values: Mapping[str, Any], raw: Mapping[str, str]) -> Foreign:
    """From values of any type under our names."""
    kinds: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("prompt", "negative_prompt", "sampler", "model"), _text),
        **dict.fromkeys(("seed", "steps", "width", "height"), _whole),
        "guidance_scale": _number,
    }
    return Foreign(program, **{name: plain(values.get(name)) for name, plain in kinds.items()}, raw=raw)


def _raw(texts: Mapping[str, str], *keys: str) -> dict[str, str]:
    return {key: texts[key][:LONGEST_RAW] for key in keys if key in texts}


def _text(value: Any) -> str:
    return value.strip()[:LONGEST_PROMPT] if isinstance(value, str) else ""


def _whole(value: Any) -> int | None:
    """A whole number from 0 to 2**64 - 1, also as text; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,20}\s*", value):
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64
    return value if whole else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value[:40])
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",:\n") else value

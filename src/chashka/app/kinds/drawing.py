"""Jobs that draw: text, a picture and a mask, variations, mixtures, and pictures that go on beyond their edges."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chashka.app.compute.runner import Event, Progress, Remark, Stop, Task
from chashka.app.kinds.kind import PICTURE, NewFields, Sizes, at_most, model_of, whole
from chashka.app.settings import Settings
from chashka.errors import InputError
from chashka.request import shown

if TYPE_CHECKING:
    from chashka.adapters import Wanted
    from chashka.app.compute.models import Models
    from chashka.families import Bundle
    from chashka.families.family import Preset
    from chashka.request import Inputs, Picture, Request

ADAPTED = ("loras", "embeddings", "vae")
SIDES = ("left", "right", "top", "bottom")
OWN = (*ADAPTED, "choices")
EXTENDED = (*ADAPTED, *SIDES)
STORED = ("model", "prompts", *OWN, *SIDES)
"""What job's fields have beyond a request's. prompts: what the choices came to, each a prompt and its negative prompt."""
LORAS = 8
SIDE = 2048
MOST_TEXT = 64_000
"""Characters of all prompts that a job's choices come to: the policy reads every one of them before the job is accepted."""
USUAL_STEPS = 50
"""What a model takes that names no number of its own; for the cost alone."""


def check_draw(said: Mapping[str, Any], inputs: Sizes, settings: Settings) -> NewFields:
    """Text, or text with the picture ``init`` and what of it the ``mask`` repaints."""
    if "mask" in inputs and "init" not in inputs:
        raise InputError("inputs: mask has no picture to repaint; give the picture (init) too")
    return _checked(said, said, inputs, settings, size=inputs.get("init"))


def check_vary(said: Mapping[str, Any], inputs: Sizes, settings: Settings) -> NewFields:
    """Other pictures of what ``init`` shows; strength is 1 if it is not said."""
    from chashka.generate.modes import PICTURE_ALONE

    if said.get("prompt"):
        raise InputError("prompt: vary takes none, the picture says what to draw; use the kind edit for words")
    strength = 1.0 if said.get("strength") is None else said["strength"]
    fields = {**said, **PICTURE_ALONE, "strength": strength}
    return _checked(said, fields, inputs, settings, inputs["init"], known=(0,))


def check_mix(said: Mapping[str, Any], inputs: Sizes, settings: Settings) -> NewFields:
    """A mixture of the parts of the field ``mix``: texts, and numbers of given pictures."""
    if not said.get("mix"):
        raise InputError(
            'mix: missing; allowed: a list of {"picture": 0, "weight": 0.6} and {"text": …, "weight": 0.4}'
        )
    return _checked(said, said, inputs, settings)


def check_extend(said: Mapping[str, Any], inputs: Sizes, settings: Settings) -> NewFields:
    """``init`` with pixels more at its sides; without a prompt the picture says what to draw."""
    from chashka.generate.modes import extending

    sides = {side: whole(said, side, 0, 0, SIDE) for side in SIDES}
    if not any(sides.values()):
        raise InputError("left: no side was given; allowed: pixels for at least one of left, right, top, bottom")
    width, height = inputs["init"]
    size = (width + sides["left"] + sides["right"], height + sides["top"] + sides["bottom"])
    if not (min(size) >= 64 and max(size) <= SIDE):
        raise InputError(f"left: the result would have {size[0]}x{size[1]} pixels; allowed: 64 to {SIDE} on each side")
    fields = {**said, **extending(said.get("prompt") or None)}
    checked = _checked(said, fields, inputs, settings, size, known=(0,))
    return replace(checked, fields=checked.fields | sides)


def run_draw(task: Task, models: Models, stop: Stop) -> Iterator[Event]:
    """Draw; pictures come as soon as those that are drawn together are done."""
    from chashka import images
    from chashka.request import Inputs

    uses = sorted((use for use in task.inputs if PICTURE.fullmatch(use)), key=_number)
    init, mask = task.inputs.get("init"), task.inputs.get("mask")
    given = Inputs(
        None if init is None else images.read(init),
        None if mask is None else images.read_mask(mask),
        tuple(images.read(task.inputs[use]) for use in uses),
    )
    yield from _drawn(task, models, stop, given)


def run_vary(task: Task, models: Models, stop: Stop) -> Iterator[Event]:
    """As :func:`run_draw`."""
    from chashka import images
    from chashka.generate.modes import varied

    yield from _drawn(task, models, stop, varied(images.read(task.inputs["init"])))


def run_extend(task: Task, models: Models, stop: Stop) -> Iterator[Event]:
    """As :func:`run_draw`."""
    from chashka import images
    from chashka.generate.modes import extended

    sides = {side: int(task.fields[side]) for side in SIDES}
    given = extended(images.read(task.inputs["init"]), sides, task.fields.get("prompt") or None)
    yield from _drawn(task, models, stop, given)


def _number(use: str) -> int:
    found = PICTURE.fullmatch(use)
    assert found is not None
    return int(found.group(1))


def _checked(
    said: Mapping[str, Any],
    fields: Mapping[str, Any],
    inputs: Sizes,
    settings: Settings,
    size: tuple[int, int] | None = None,
    known: tuple[int, ...] = (),
) -> NewFields:
    """The request of ``fields``, with seeds, within the limits.

    size: of the picture that is begun with. known: numbers of pictures that the kind itself gives to be mixed.
    """
    from chashka.generate.modes import chosen, mixable, wanted
    from chashka.prompts import tags
    from chashka.prompts.wildcards import files_in

    model, options, preset = model_of(said, settings)
    asked = {str(k): v for k, v in fields.items() if k not in STORED and v is not None}
    numbered = [use for use in inputs if PICTURE.fullmatch(use)]
    if numbered or "mix" in asked:
        mixable(options, model)
        asked.setdefault("prompt", "")
    asked.setdefault("seed", secrets.randbelow(2**32))
    if asked.get("subseed_strength"):
        asked.setdefault("subseed", secrets.randbelow(2**32))
    request = options(**asked)
    choices = said.get("choices")
    if choices not in (None, "random", "all"):
        raise InputError(f"choices: {shown(choices)} is not possible; allowed: random or all")
    _check_texts(request, settings)
    at_most("n", request.n, settings.max_n)  # before a prompt is chosen for each of them
    requests = [request]
    if choices is not None:
        folder = None if settings.models is None else settings.models / "wildcards"
        requests = chosen(request, choices == "all", files_in(folder), settings.max_expansions)
    pictures = sum(one.n for one in requests)
    at_most("n", pictures, settings.max_n)
    _check_parts(request, numbered, known)
    for one in requests:
        _check_texts(one, settings)
        if preset.adapters:
            tags.check(one.prompt)
    own = _adapters(said, preset, settings)
    if choices is not None:
        own |= {"choices": choices, "prompts": [[one.prompt, one.negative_prompt] for one in requests]}
    cost = _cost(request, preset, size, pictures, settings)
    stored = {"model": model} | request.model_dump(mode="json", exclude_none=True) | own
    texts = dict.fromkeys(text for one in (request, *requests) for text in wanted(one))
    at_most("prompt", sum(map(len, texts)), MOST_TEXT, " characters in all prompts that are chosen")
    return NewFields(stored, tuple(texts), pictures, cost)


def _check_texts(request: Request, settings: Settings) -> None:
    """Everything that a person wrote into a request."""
    parts = getattr(request, "mix", None) or ()
    for text in [*(value for name, value in request if name.endswith("prompt")), *(part.text for part in parts)]:
        at_most("prompt", len(text or ""), settings.max_prompt, " characters")


def _check_parts(request: Request, numbered: Sequence[str], known: Sequence[int]) -> None:
    """Raises InputError for a part that means a picture that was not given."""
    numbers = sorted(map(_number, numbered))
    if numbers != list(range(len(numbers))):
        raise InputError(f"inputs: {', '.join(numbered)} leave a gap; allowed: picture 0, picture 1 and so on")
    known = known or numbers
    for part in getattr(request, "mix", None) or ():
        if part.picture is not None and part.picture not in known:
            those = ", ".join(map(str, known)) or "none was given"
            raise InputError(f"mix: picture {part.picture} is not among the inputs; allowed: {those}")


def _cost(request: Request, preset: Preset, size: tuple[int, int] | None, pictures: int, settings: Settings) -> float:
    """steps × pixels × pictures, each checked against its own limit, and the product too."""
    width, height = request.width or request.height, request.height or request.width
    given = preset.area if size is None else size[0] * size[1]
    pixels = width * height if width and height else given
    steps = request.steps or USUAL_STEPS
    for name in ("steps", "hires_steps", "prior_steps"):
        at_most(name, getattr(request, name, None) or 0, settings.max_steps)
    at_most("width" if request.width else "height", pixels, settings.max_pixels, " pixels in all")
    cost = float(steps * max(pixels, preset.area))
    if request.hires_scale is not None:
        larger = pixels * request.hires_scale**2
        at_most("hires_scale", larger, settings.max_pixels, " pixels in all")
        cost += (request.hires_steps or steps) * larger
    cost *= pictures
    if cost > settings.max_cost:
        raise InputError(
            f"n: {pictures} pictures of {pixels} pixels in {steps} steps are {cost:.3g} together; allowed: at most "
            f"{settings.max_cost:.3g} on this server; ask for fewer pictures or steps"
        )
    return cost


def _adapters(said: Mapping[str, Any], preset: Preset, settings: Settings) -> dict[str, Any]:
    """The LoRAs, embeddings and the autoencoder that are asked for, by names that exist."""
    found: dict[str, Any] = {}
    loras = said.get("loras") or []
    names = said.get("embeddings") or []
    rule = f'allowed: a list of at most {LORAS} {{"name": …, "weight": 0.8}}'
    if not isinstance(loras, list) or len(loras) > LORAS or not all(map(_is_lora, loras)):
        raise InputError(f"loras: {shown(loras)} is not possible; {rule}")
    if not isinstance(names, list) or len(names) > LORAS or not all(isinstance(name, str) for name in names):
        raise InputError(f"embeddings: {shown(names)} is not possible; allowed: a list of at most {LORAS} names")
    if loras:
        found["loras"] = [{"name": one["name"], "weight": float(one["weight"])} for one in loras]
    if names:
        found["embeddings"] = list(names)
    if said.get("vae") is not None:
        if not isinstance(said["vae"], str):
            raise InputError(f"vae: {shown(said['vae'])} is not possible; allowed: a name")
        found["vae"] = said["vae"]
    if found and not preset.adapters:
        raise InputError(f"{next(iter(found))}: this model takes none; checkpoints of Stable Diffusion do")
    _wanted(found, settings).of("", "", preset.adapters, preset.name)
    _vae(found, settings)
    return found


def _is_lora(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"name", "weight"}
        and isinstance(value["name"], str)
        and isinstance(value["weight"], (int, float))
        and not isinstance(value["weight"], bool)
        and -10 <= value["weight"] <= 10
    )


def _wanted(fields: Mapping[str, Any], settings: Settings) -> Wanted:
    """The LoRAs and embeddings of a job's fields."""
    from chashka.adapters import Wanted

    given = [(one["name"], one["weight"]) for one in fields.get("loras", ())]
    return Wanted(given, fields.get("embeddings", ()), settings.models, paths=False)


def _vae(fields: Mapping[str, Any], settings: Settings) -> Path | None:
    """The autoencoder of a job's fields."""
    from chashka.adapters import vae

    return vae(fields.get("vae"), settings.models, paths=False)


def _requests(task: Task, options: type[Request]) -> list[Request]:
    """The requests that a job's fields stand for."""
    from chashka.generate.modes import with_prompts

    request = options(**{name: value for name, value in task.fields.items() if name not in STORED})
    choices = task.fields.get("choices")
    return [request] if choices is None else with_prompts(request, choices == "all", task.fields["prompts"])


def _drawn(task: Task, models: Models, stop: Stop, given: Inputs) -> Iterator[Event]:
    """Open the model, once for all pictures with the same adapters, and draw what is still missing."""
    from chashka.adapters import alike

    model, options, preset = model_of(task.fields, models.settings)
    requests = _requests(task, options)
    wanted, vae = _wanted(task.fields, models.settings), _vae(task.fields, models.settings)
    groups = alike([wanted.of(one.prompt, one.negative_prompt, preset.adapters, preset.name) for one in requests])
    numbers = [sum(one.n for one in requests[:place]) for place in range(len(requests))]
    left, before, told = list(range(len(requests))), 0, False
    for (loras, words), places in groups.items():
        left = [place for place in left if place not in places]
        if all(task.skip >= set(range(numbers[place], numbers[place] + requests[place].n)) for place in places):
            continue
        with models.use(model, loras, words, vae) as opened:
            bundle = opened.careful(decoding=task.cautious > 1) if task.cautious else opened
            if bundle.codec is not opened.codec and not told:
                told = True
                yield Remark(
                    "memory ran out twice: pictures larger than 256x256 were decoded in tiles, which may differ a little from "
                    "the whole"
                )
            if not before:
                yield Progress(0, 0)  # a sign of life: opening a model may take a while
            drawing = _Drawing(bundle, given, task.skip, stop, before)
            yield from drawing.run(*([(numbers[place], requests[place]) for place in some] for some in (places, left)))
            before = drawing.before
        if stop():
            return


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is drawn at once: pictures from ``number`` of the job on. whole: the request that it is a part of."""

    number: int
    request: Request
    whole: Request


@dataclass
class _Drawing:
    """Draws requests batch by batch. before: steps of the batches that are done."""

    bundle: Bundle
    given: Inputs
    skip: frozenset[int]
    stop: Stop
    before: int = 0

    def run(
        self, requests: Sequence[tuple[int, Request]], later: Sequence[tuple[int, Request]] = ()
    ) -> Iterator[Event]:
        """requests: each with the number of its first picture. later: those that another opening of the model will draw."""
        left, others = self._left(requests), len(self._left(later))
        for place, batch in enumerate(left):
            yield from self._one(batch, len(left) - place + others)
            if self.stop():
                return

    def _left(self, requests: Sequence[tuple[int, Request]]) -> list[_Batch]:
        """A batch of which a picture is missing is drawn whole: a network's last bits depend on what is beside a row."""
        batches = [batch for number, request in requests for batch in self._batches(number, request)]
        return [one for one in batches if not self.skip >= set(range(one.number, one.number + one.request.n))]

    def _batches(self, number: int, asked: Request) -> list[_Batch]:
        """As many pictures as the model draws in one call, all of them where it must."""
        from chashka.generate.loop import batches_of, complete

        request = complete(self.bundle, asked)
        if self.bundle.conventions(request).posterior:  # one sample of the encoder's distribution serves all pictures
            return [_Batch(number, request, request)]
        return [
            _Batch(number + offset, request.with_fields(n=count, first=request.first + offset), request)
            for offset, count in batches_of(self.bundle, request)
        ]

    def _one(self, batch: _Batch, left: int) -> Iterator[Event]:
        """left: batches that are to be drawn, with this one."""
        from chashka.app.kinds.results import Previews, made
        from chashka.generate import generate

        shift = batch.number - batch.request.first
        steps, previews = 0, Previews(self.bundle, batch.request.background, shift)
        with contextlib.closing(generate(self.bundle, batch.request, self.given)) as run:
            while True:
                if self.stop() == "now":
                    return
                try:
                    progress = next(run)
                except StopIteration as finished:
                    pictures: list[Picture] = finished.value
                    break
                steps = progress.total
                yield Progress(self.before + progress.done, self.before + steps * left, previews.of(progress))
        self.before += steps
        for note in dict.fromkeys(note for picture in pictures for note in picture.notes):
            yield Remark(note)
        for picture in pictures:
            if self.stop() == "now":
                return
            if picture.index + shift not in self.skip:
                asked = picture.request.with_fields(n=batch.whole.n, first=batch.whole.first)
                yield made(replace(picture, request=asked), picture.index + shift)

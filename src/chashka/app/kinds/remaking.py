"""Jobs that make another file of a given picture: enlarged, or traced into curves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chashka.app.compute.runner import Event, Made, Progress, Stop, Task
from chashka.app.kinds.kind import NewFields, Sizes, at_most, model_of, no_more, whole
from chashka.app.settings import Settings

if TYPE_CHECKING:
    from chashka.app.compute.models import Models


def check_upscale(said: Mapping[str, Any], inputs: Sizes, settings: Settings) -> NewFields:
    """by: how many times as wide and as high, 2 or 4."""
    from chashka import enlarge

    no_more(said, ("model", "by"))
    by = whole(said, "by", 2, 1, 64)
    width, height = inputs["init"]
    enlarge.check(by, width, height)
    pixels = width * height * by * by
    at_most("by", pixels, settings.max_pixels, " pixels in all")
    return NewFields({"model": model_of(said, settings)[0], "by": by}, cost=float(pixels))


def run_upscale(task: Task, models: Models, stop: Stop) -> Iterator[Event]:
    """One picture; its tiles are the steps."""
    from chashka import enlarge, images

    if 0 in task.skip:
        return
    pixels, by = images.read(task.inputs["init"]), int(task.fields["by"])
    with models.use(str(task.fields["model"])) as bundle:
        run = enlarge.steps(bundle, pixels, by)
        while True:
            if stop() == "now":
                return
            try:
                yield Progress(*next(run))
            except StopIteration as finished:
                larger = finished.value
                break
        if int(pixels[..., 3].min()) == 255:
            larger = larger[..., :3]  # a picture without transparency stays one
        label = images.enlarged_label(task.inputs["init"], by, bundle.model, (larger.shape[1], larger.shape[0]))
        yield _file(larger, label, ".png", bundle.model)


def check_svg(said: Mapping[str, Any], inputs: Sizes, settings: Settings) -> NewFields:
    """No fields: curves of the given picture."""
    no_more(said, ())
    width, height = inputs["init"]
    at_most("init", width * height, settings.max_pixels, " pixels in all")
    return NewFields({}, cost=float(width * height))


def run_svg(task: Task, models: Models, stop: Stop) -> Iterator[Event]:
    """One SVG file that says what the picture's does. Raises MissingExtraError without the extra [svg]."""
    from chashka import images
    from chashka.images.metadata import Label
    from chashka.images.privacy import label_in

    images.require_tracer()
    if 0 in task.skip or stop():
        return
    yield Progress(0, 1)
    pixels = images.read(task.inputs["init"])
    label = label_in(task.inputs["init"].read_bytes())
    yield _file(pixels, label or Label("algorithmicallyEnhanced"), ".svg", "")
    yield Progress(1, 1)


def _file(pixels: Any, label: Any, suffix: str, model: str) -> Made:
    from chashka.app.kinds.results import PNG, SVG, made_of
    from chashka.images.writing import encode

    data = encode(pixels, label, Path(f"picture{suffix}"))
    own = json.loads(label.own) if label.own is not None else {}
    return made_of(pixels, data, SVG if suffix == ".svg" else PNG, 0, own, model)

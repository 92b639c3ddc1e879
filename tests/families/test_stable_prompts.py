"""What is said to Stable Diffusion, and in how many calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_file import opened

from chashka import generate
from chashka.errors import InputError
from chashka.families.stable_diffusion import sampling
from chashka.families.stable_diffusion.options import Options
from chashka.families.stable_diffusion.text import CLIP

pytestmark = pytest.mark.torch


def test_a_draft_calls_the_network_less(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = opened(checkpoints, "compvis.safetensors")
    rows: list[int] = []

    class Counted:
        def __init__(self, network: Any) -> None:
            self.network = network

        def __call__(self, x: Any, t: Any, cond: Any) -> Any:
            rows.append(len(x))
            return self.network(x, t, cond)

    counted = replace(bundle, denoiser=replace(bundle.denoiser, network=Counted(bundle.denoiser.network)))

    def drawn(**fields: Any) -> Any:
        rows.clear()
        return generate.draw(counted, bundle.request(prompt="a cup", seed=1, width=64, height=64, **fields))[0].request

    drawn()
    assert sum(rows) == 40
    draft = drawn(fast=True)
    assert rows == [2] * 7 + [1] * 3 and draft.spacing == "ays" and draft.steps == 10
    assert sum((drawn(fast=True, steps=4, guidance_stop=0.5), *rows)[1:]) == 6, "what is asked for stays"
    with pytest.raises(InputError, match="guidance_stop"):
        bundle.request(prompt="a cup", guidance_start=0.5, guidance_stop=0.4)


def test_chunks() -> None:
    """75 words, cut behind a comma that is not too far back; BREAK begins a new one."""
    assert [len(c.ids) for c in CLIP.chunks("cup " * 75)] == [75]
    assert [len(c.ids) for c in CLIP.chunks("cup " * 80)] == [75, 5]
    assert [len(c.ids) for c in CLIP.chunks("cup " * 64 + ", " + "tea " * 20)] == [65, 20]
    assert [len(c.ids) for c in CLIP.chunks("cup " * 40 + ", " + "tea " * 40)] == [75, 6]
    assert [len(c.ids) for c in CLIP.chunks("a cup BREAK tea")] == [2, 1]
    assert [len(c.ids) for c in CLIP.chunks("a cup BREAK tea", grammar=False)] == [4]
    assert [c.ids for c in CLIP.chunks("")] == [[]]
    # an empty chunk at the end is none, one at the beginning and between others is
    lengths = {
        "a cup BREAK": [2],
        "a cup BREAK BREAK": [2, 0],
        "BREAK a cup": [0, 2],
        "a BREAK BREAK cup": [1, 0, 1],
        "BREAK": [0],
        "cup " * 75 + "BREAK ": [75],
    }
    assert {prompt: [len(c.ids) for c in CLIP.chunks(prompt)] for prompt in lengths} == lengths
    (chunk,) = CLIP.chunks("a (red:1.5) cup")
    assert chunk.weights == [1.0, 1.5, 1.0]


def test_weights_change_tokens_and_keep_their_mean(checkpoints: Path) -> None:
    text: Any = opened(checkpoints, "compvis.safetensors").text
    plainly, heavy = text.chunked("a red cup", True)["tokens"], text.chunked("a (red:1.5) cup", True)["tokens"]
    assert np.allclose(plainly, text.encode(["a red cup"])["tokens"], atol=1e-6)
    assert heavy.mean() == pytest.approx(plainly.mean(), rel=1e-3) and not np.allclose(heavy, plainly)
    ratio = heavy[0, 2] / heavy[0, 1] * plainly[0, 1] / plainly[0, 2]
    assert np.allclose(ratio, 1.5, rtol=1e-3)
    assert text.chunked("cup " * 100, True)["tokens"].shape == (1, 154, 24)
    assert text.meter("cup " * 100).cut == 0 and text.meter("(cup:1.2)").used == 1


@pytest.mark.parametrize(
    ("fields", "used", "cut", "limit"),
    [
        ({"prompt": "cup " * 100}, 100, 0, 150),
        ({"prompt": "cup " * 100, "compat": "original"}, 75, 25, 75),
        ({"prompt": "cup " * 100, "compat": "diffusers"}, 75, 25, 75),
        ({"prompt": "cup " * 100, "syntax": "plain"}, 100, 0, 150),
        ({"prompt": "(a:1.2)", "compat": "original"}, 7, 0, 75),
        ({"prompt": "(a:1.2)"}, 1, 0, 75),
        ({"prompt": "a [cat:red dog:0.5]"}, 3, 0, 75),
        ({"prompt": "a [cat:red dog:9]"}, 2, 0, 75),
        ({"prompt": "[cat|red dog|dog]"}, 2, 0, 75),
        ({"prompt": "a [cat:red dog:1.5]"}, 2, 0, 75),
        ({"prompt": "a [cat:red dog:1.5]", "hires_scale": 2.0}, 2, 0, 75),
        ({"prompt": "a [cat:red dog:1.2]", "hires_scale": 2.0}, 3, 0, 75),
        ({"prompt": "a [cat:red dog:1.5]", "hires_scale": 2.0, "hires_steps": 8}, 3, 0, 75),
        ({"prompt": "a red cat AND a dog :0.5"}, 3, 0, 75),
        ({"prompt": "a cup BREAK tea"}, 3, 0, 150),
        ({"prompt": "a cup BREAK"}, 2, 0, 75),
        ({"prompt": ""}, 0, 0, 75),
        ({"prompt": "a cup <lora:ink:1>"}, 2, 0, 75),
        ({"prompt": "a cup <lora:ink:1>", "compat": "original"}, 2, 0, 75),
    ],
)
def test_the_meter_says_what_is_drawn(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], used: int, cut: int, limit: int
) -> None:
    bundle = opened(checkpoints, "compvis.safetensors")
    request = bundle.request(seed=1, steps=4, sampler="ddim", width=64, height=64, **fields)
    meter = bundle.meters(request)[0]
    assert (meter.used, meter.cut, meter.limit) == (used, cut, limit)
    read: list[int] = []
    text: Any = bundle.text
    tower = text._tower
    monkeypatch.setattr(text, "_tower", lambda ids: read.append(len(ids)) or tower(ids))
    notes = generate.draw(bundle, request)[0].notes
    assert max(read) == min(used, 75) or "BREAK" in request.prompt, "what the tower was given"
    expected = f"the prompt has {used + cut} tokens, of which the model reads the first {used}"
    assert (expected in notes) == bool(cut)


def test_the_meter_of_a_negative_prompt(checkpoints: Path) -> None:
    bundle = opened(checkpoints, "compvis.safetensors")
    request = bundle.request(
        prompt="a", negative_prompt="cup " * 80, seed=1, steps=2, compat="original", sampler="ddim"
    )
    assert bundle.meters(request)[1].cut == 5
    assert "the negative prompt has 80 tokens, of which the model reads the first 75" in (
        generate.draw(bundle, request.with_fields(width=64, height=64))[0].notes
    )


def test_as_many_chunks_as_attention_can_bear(checkpoints: Path) -> None:
    bundle = opened(checkpoints, "compvis.safetensors")
    fields = {"seed": 1, "steps": 1, "sampler": "ddim", "width": 64, "height": 64}
    long = "a red cat on a table, " * 450
    assert bundle.meters(bundle.request(prompt=long, **fields))[0].used == 450 * 7
    assert len(generate.draw(bundle, bundle.request(prompt=long, negative_prompt="BREAK " * 120, **fields))) == 1
    for field, text, chunks in (("prompt", "茶" * 9_000, 360), ("negative_prompt", "a BREAK " * 1_000 + "a", 1001)):
        with pytest.raises(InputError) as error:
            generate.draw(bundle, bundle.request(**({"prompt": "a"} | fields | {field: text})))
        assert str(error.value) == (
            f"{field}: it is read in {chunks} chunks of 75 words; allowed: at most 128; make it shorter"
        )
    assert bundle.meters(bundle.request(prompt="茶" * 9_000, compat="original", **fields))[0].used == 75


def test_what_is_said_in_each_step() -> None:
    options = Options(prompt="a [cat:dog:2] AND tea :0.5", negative_prompt="[x|y]")
    said = sampling.prompts(options, 5)
    assert [parts[0].text for parts, _ in said] == ["a cat", "a cat", "a cat", "a dog", "a dog"]
    assert {(parts[1].text, parts[1].weight) for parts, _ in said} == {("tea", 0.5)}
    assert [negative for _, negative in said] == ["x", "x", "y", "x", "y"]
    asis = sampling.prompts(options.with_fields(syntax="plain"), 2)
    assert asis[0][0][0].text == "a [cat:dog:2] AND tea :0.5"
    sigmas = (8.0, 4.0, 2.0, 0.0)
    assert [sampling.step_of(s, sigmas) for s in (8.0, 5.0, 4.0, 2.0, 1.0)] == [0, 0, 1, 2, 2]


def test_the_grammar_draws(checkpoints: Path) -> None:
    bundle = opened(checkpoints, "compvis.safetensors")
    asked = {"seed": 1, "steps": 4, "width": 64, "height": 64}

    def pixels(prompt: str, **more: Any) -> Any:
        return generate.draw(bundle, bundle.request(prompt=prompt, **asked, **more))[0].pixels

    plainly = pixels("a red cup")
    different = [
        "a (red:1.4) cup",
        "a [red:blue:2] cup",
        "a red cup AND tea",
        "a red cup BREAK tea",
        "a red cup, " * 40,
    ]
    assert all(not np.array_equal(plainly, pixels(prompt)) for prompt in different)
    assert np.array_equal(pixels("a (red) cup", syntax="plain"), pixels("a (red) cup", syntax="plain"))
    assert np.array_equal(plainly, pixels("a [red:blue:99] cup"))

"""What other programs' pictures say: every format, both ways of writing it, and damaged ones."""

from __future__ import annotations

import json
import random
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chashka.images.carried import has_credentials, texts_in
from chashka.images.foreign import Foreign, pairs_of, parameters_of, read_foreign
from foreign_files import (
    A1111,
    COMFY_GRAPH,
    EVERY,
    NEGATIVE,
    PROMPT,
    a1111_comment,
    png,
    png_chunk,
    with_exif,
)

SAID = {
    "AUTOMATIC1111": Foreign(
        "AUTOMATIC1111", f"{PROMPT}\nsecond line", NEGATIVE, 42, 20, "Euler a", 7.5, 512, 768, "deliberate, v2"
    ),
    "ComfyUI": Foreign("ComfyUI", PROMPT, NEGATIVE, 2**64 - 2, 20, "euler", 8.0, 512, 640, "v1-5.safetensors"),
    "ComfyUI flux": Foreign("ComfyUI", PROMPT, "", 9, 4, "euler", None, 64, 32, "flux.safetensors"),
    "InvokeAI png": Foreign("InvokeAI", PROMPT, NEGATIVE, 7, 30, "euler_a", 6.5, 512, 512, "sd"),
    "InvokeAI older": Foreign("InvokeAI", "a cup", NEGATIVE, 3, 50, "k_lms", 7.5, 512, 512, "sd-1.4"),
    "InvokeAI oldest": Foreign("InvokeAI", "a cup", NEGATIVE, 3, 50, "k_lms", 7.5, 512, 256, ""),
    "Fooocus png": Foreign("Fooocus", PROMPT, NEGATIVE, 11, 30, "dpmpp_2m_sde_gpu", 4.0, 1024, 768, "juggernaut"),
    "Fooocus a1111": Foreign(
        "Fooocus", f"{PROMPT}\nsecond line", NEGATIVE, 42, 20, "Euler a", 7.5, 512, 768, "deliberate, v2"
    ),
    "NovelAI": Foreign("NovelAI", PROMPT, NEGATIVE, 5, 28, "k_euler", 11.0, None, None, "Stable Diffusion 1D44365E"),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_program_is_read(name: str) -> None:
    found = read_foreign(EVERY[name])
    wanted = SAID.get(name) or SAID[name.split()[0]]
    assert found is not None and found.raw
    assert {k: v for k, v in found.as_json().items() if k != "raw"} == {
        k: v for k, v in wanted.as_json().items() if k != "raw"
    }


@pytest.mark.parametrize("name", EVERY)
def test_what_was_read_can_be_written_as_a1111_and_read_again(name: str) -> None:
    found = read_foreign(EVERY[name])
    assert found is not None
    again = parameters_of(found.parameters())
    assert again is not None
    for field in ("prompt", "negative_prompt", "seed", "steps", "sampler", "guidance_scale", "model"):
        assert getattr(again, field) == getattr(found, field), field


def test_utf8_where_latin1_belongs_is_repaired() -> None:
    """stable-diffusion.cpp writes raw UTF-8 into tEXt."""
    text = f"{PROMPT}\nSteps: 3, CFG scale: 7.000000, Seed: 1, Size: 64x64, Sampler: euler_a, Version: stable-diffusion.cpp"
    found = read_foreign(png_chunk(b"tEXt", b"parameters\0" + text.encode()))
    assert found is not None and (found.program, found.prompt, found.seed) == ("stable-diffusion.cpp", PROMPT, 1)
    assert texts_in(png_chunk(b"tEXt", b"Comment\0caf\xe9")) == {"Comment": "café"}


def test_comments_in_every_coding() -> None:
    for coding in (a1111_comment(A1111), a1111_comment(A1111, "le"), b"ASCII\0\0\0" + A1111.encode(), A1111.encode()):
        found = read_foreign(with_exif("JPEG", {}, coding))
        assert found is not None and found.negative_prompt == NEGATIVE and found.prompt.startswith(PROMPT)


@pytest.mark.parametrize(
    ("version", "program"),
    [("f2.0.1v1.10.1", "Forge"), ("ComfyUI", "ComfyUI"), ("chashka 0.1.0", "chashka"), ("1.9", "AUTOMATIC1111")],
)
def test_who_wrote_the_a1111_text(version: str, program: str) -> None:
    found = parameters_of(f"a\nSteps: 1, Seed: 2, Size: 8x8, Version: {version}")
    assert found is not None and found.program == program


def test_a_prompt_that_looks_like_settings_is_a_prompt() -> None:
    assert parameters_of("a: b, c") is None
    found = parameters_of("Negative prompt: x, Steps: 3, y: z\nSteps: 1, Seed: 2, Size: 8x8")
    assert found is not None and found.steps == 1 and found.negative_prompt == "x, Steps: 3, y: z"


def test_quoted_values() -> None:
    line = 'A: "x, \\"y\\": z", B: 2, C: "not closed, D: 4, : 5, no key, E: '
    assert list(pairs_of(line)) == [("A", 'x, "y": z'), ("B", "2"), ("C", '"not closed'), ("D", "4"), ("E", "")]


def test_a_photograph_says_nothing() -> None:
    assert (
        read_foreign(with_exif("JPEG", {0x010F: "Canon", 0x0110: "EOS", 0x0131: "Lightroom"}, b"ASCII\0\0\0nice"))
        is None
    )
    assert read_foreign(png()) is None
    assert read_foreign(b"") is None
    assert read_foreign(b"no picture at all") is None


@pytest.mark.parametrize(
    "data",
    [
        png(prompt="{"),
        png(prompt="[1, 2]"),
        png(prompt='{"1": {"class_type": 5, "inputs": []}}'),
        png(prompt="[" * 100_000),
        png(invokeai_metadata="[]"),
        png(invokeai_metadata='{"seed": NaN, "steps": true, "width": -1, "positive_prompt": 5}'),
        png(sd__metadata='{"image": 5}'),
        png(parameters="{}", fooocus_scheme="fooocus"),
        png(Software="NovelAI", Comment="5"),
        png_chunk(b"zTXt", b"parameters\0\0not compressed"),
        png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 50_000_000)),
        png_chunk(b"iTXt", b"parameters"),
        with_exif("JPEG", {}, b"UNICODE\0\xd8"),
    ],
)
def test_damaged_metadata_raise_nothing(data: bytes) -> None:
    started = time.process_time()
    found = read_foreign(data)
    assert found is None or not (found.prompt or found.seed or found.steps or found.width)
    assert time.process_time() - started < 2


def test_circles_in_a_graph_end() -> None:
    graph = json.loads(json.dumps(COMFY_GRAPH))
    graph["6"]["inputs"]["text"] = ["11", 0]
    graph["11"]["inputs"]["value"] = ["6", 0]
    graph["4"]["inputs"]["model"] = ["3", 0]
    found = read_foreign(png(prompt=json.dumps(graph)))
    assert found is not None and found.negative_prompt == NEGATIVE


@given(st.sampled_from(sorted(EVERY)), st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_files_with_wrong_bytes_raise_nothing(name: str, at: int, wrong: bytes) -> None:
    data = bytearray(EVERY[name])
    at %= len(data)
    data[at : at + len(wrong)] = wrong
    read_foreign(bytes(data))
    read_foreign(bytes(data[:at]))
    has_credentials(bytes(data))


def test_long_lines_take_little_time() -> None:
    random.seed(1)
    started = time.process_time()
    for line in ("a " * 50_000, "a: " * 50_000, 'a: "' * 50_000, "," * 100_000, "\\" * 100_000):
        parameters_of(line)
        read_foreign(png(parameters=line[:60_000]))
    assert time.process_time() - started < 5

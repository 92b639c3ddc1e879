"""Requests: what is allowed, and the one line that says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chashka.errors import ChashkaError, InputError
from chashka.families.kandinsky.options import Options
from chashka.families.stable_diffusion.options import Options as StableOptions
from chashka.request import Request

WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"prompt": ""}, ["prompt", "''", "1 to 10000 characters"]),
    ({"prompt": "  \n\t "}, ["prompt", "1 to 10000 characters"]),
    ({"prompt": "x" * 10_001}, ["prompt", "10001 characters", "1 to 10000"]),
    ({"prompt": "\ud800"}, ["prompt", "1 to 10000"]),
    ({}, ["prompt", "missing"]),
    ({"negative_prompt": "y" * 10001}, ["negative_prompt", "10001", "at most 10000"]),
    ({"steps": 0}, ["steps", "0", "1 to 1000"]),
    ({"steps": 5000}, ["steps", "5000", "1 to 1000"]),
    ({"steps": 7.5}, ["steps", "7.5", "1 to 1000"]),
    ({"steps": "many"}, ["steps", "'many'", "1 to 1000"]),
    ({"guidance_scale": float("nan")}, ["guidance_scale", "nan", "0 to 50"]),
    ({"guidance_scale": float("inf")}, ["guidance_scale", "inf", "0 to 50"]),
    ({"guidance_scale": 51}, ["guidance_scale", "51", "0 to 50"]),
    ({"n": 0}, ["n:", "0", "1 to 64"]),
    ({"n": 65}, ["n:", "65", "1 to 64"]),
    ({"n": True}, ["n:", "True", "1 to 64"]),
    ({"seed": -1}, ["seed", "-1", "0 to 2**63 - 1"]),
    ({"seed": 2**63}, ["seed", str(2**63), "0 to 2**63 - 1"]),
    ({"width": 63}, ["width", "63", "64 to 2048"]),
    ({"height": 4096}, ["height", "4096", "64 to 2048"]),
    ({"strength": 1.5}, ["strength", "1.5", "0 to 1"]),
    ({"background": "chequered"}, ["background", "'chequered'", "#rrggbb"]),
    ({"colour": "red"}, ["colour", "no such field", "prompt"]),
    ({"sampler": "k_magic"}, ["sampler", "'k_magic'", "ddim", "dpmpp_2m"]),
    ({"spacing": "wide"}, ["spacing", "'wide'", "karras"]),
    ({"denoised_type": "some"}, ["denoised_type", "'some'", "dynamic_threshold"]),
    ({"eta": -0.1}, ["eta", "-0.1", "0 to 1"]),
    ({"dynamic_threshold_v": 101}, ["dynamic_threshold_v", "101", "0 to 100"]),
    ({"guidance_start": 0.5, "guidance_stop": 0.5}, ["guidance_stop", "0.5", "more than guidance_start"]),
]


@pytest.mark.parametrize(("fields", "words"), WRONG, ids=lambda v: str(v)[:40])
def test_wrong_values_are_named_in_one_line(fields: dict[str, Any], words: list[str]) -> None:
    given_fields = fields if not fields or "prompt" in fields else {"prompt": "чашка", **fields}
    with pytest.raises(InputError) as caught:
        Options(**given_fields)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 320
    for word in words:
        assert word in message
    assert caught.value.exit_code == 2


def test_who_needs_words() -> None:
    """Stable Diffusion draws without any, as its originals do; Kandinsky's models with words or with a mixture alone."""
    for said in (
        {"prompt": ""},
        {"prompt": " \n"},
        {"prompt": "", "syntax": "plain"},
        {"prompt": "", "compat": "original"},
    ):
        assert StableOptions(**said).prompt == ""
    for wrong, allowed in (
        ({}, "prompt: missing; allowed: text of at most 10000"),
        ({"prompt": "x" * 10001}, "at most 10000"),
    ):
        with pytest.raises(InputError, match=allowed):
            StableOptions(**wrong)
    assert list(StableOptions.model_fields)[: len(Request.model_fields)] == list(Request.model_fields)
    for options in (Options, Request):
        with pytest.raises(InputError, match=r"^prompt: '' is not possible; allowed: text of 1 to 10000 characters$"):
            options(prompt="")
    assert Options(prompt="", mix=[{"text": "a cup", "weight": 1}]).prompt == ""


def test_several_problems_are_counted() -> None:
    with pytest.raises(InputError, match=r"steps: 0 .*\(and 1 more\)"):
        Request(prompt="a", steps=0, width=1)


def test_text_is_stripped_and_kept_as_it_is_otherwise() -> None:
    assert Request(prompt="  космос «внутри» чашки 🫖 ").prompt == "космос «внутри» чашки 🫖"


@pytest.mark.parametrize("options", [Options, StableOptions])
def test_prompts_are_long_and_not_endless(options: type[Request]) -> None:
    long = "a red cat, " * 909 + "x"
    assert len(long) == 10_000
    assert options(prompt=f" {long} ", negative_prompt=long).negative_prompt == long
    for field in ("prompt", "negative_prompt"):
        with pytest.raises(
            InputError, match=f"^{field}: 'a red cat, .* is not possible .10001 characters.; allowed: text of"
        ):
            options(**{"prompt": "a", field: long + "x"})


def test_strings_from_flags_become_numbers() -> None:
    request = Options(prompt="a", steps="12", guidance_scale="3.5", eta="0.25")
    assert (request.steps, request.guidance_scale, request.eta) == (12, 3.5, 0.25)


def test_sampler_aliases_are_stored_by_their_own_name() -> None:
    assert Options(prompt="a", sampler="DPM++ 2M").sampler == "dpmpp_2m"


@pytest.mark.parametrize("options", [Options, StableOptions])
def test_a_sampler_as_a1111_writes_it_says_the_spacing_too(options: type[Request]) -> None:
    request = options(prompt="a", sampler="DPM++ 2M Karras")
    assert (request.sampler, request.spacing) == ("dpmpp_2m", "karras")
    assert options.of(request.model_dump(exclude_none=True)) == request
    assert request.with_fields(sampler="Euler a").spacing == "karras"
    assert request.filled({"spacing": "ays"}).spacing == "karras"
    with pytest.raises(InputError, match=r"^spacing: 'linspace' is not possible with the sampler 'Euler Karras'"):
        options(prompt="a", sampler="Euler Karras", spacing="linspace")
    with pytest.raises(InputError, match=r"^sampler 'LMS' does not exist; use one of ddim, .*UniPC") as error:
        options(prompt="a", sampler="LMS")
    assert ("p_sampler" in str(error.value)) == (options is Options)


def test_requests_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        Request(prompt="a").prompt = "b"  # type: ignore[misc]


def test_filled_takes_only_what_is_absent_and_known() -> None:
    request = Request(prompt="a", steps=3).filled({"steps": 50, "sampler": "ddim", "eta": 0.1})
    assert (request.steps, request.sampler) == (3, "ddim")


def test_with_fields_checks_again() -> None:
    with pytest.raises(InputError, match="steps: 0"):
        Request(prompt="a").with_fields(steps=0)


def test_a_stored_request_comes_back() -> None:
    request = Options(prompt="кот", seed=2**63 - 1, steps=7, eta=0.5)
    assert Options.of(request.model_dump(exclude_none=True)) == request


# not st.text(): it first builds a table of all of Unicode, which takes longer than all other tests together
TEXT = st.lists(st.integers(0, 0x10FFFF), max_size=40).map(lambda points: "".join(map(chr, points)))


@given(st.dictionaries(st.sampled_from([*Options.model_fields, "x"]), st.none() | TEXT | st.integers() | st.floats()))
def test_whatever_is_given_is_a_request_or_one_line(fields: dict[str, Any]) -> None:
    try:
        Options(**fields)
    except ChashkaError as error:
        assert len(str(error).splitlines()) == 1, str(error)


def test_every_field_says_what_is_allowed_and_what_it_is() -> None:
    for info in Options.model_fields.values():
        assert info.description
        assert isinstance(info.json_schema_extra, dict) and info.json_schema_extra["allowed"]

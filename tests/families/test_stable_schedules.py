"""Which words a step is drawn with, in a first and in a second pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chashka.families.family import Plan
from chashka.families.stable_diffusion import sampling
from chashka.families.stable_diffusion.options import Options


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What each call of a run hears: (prompts that AND joins, negative prompt), by a request and a plan."""
    monkeypatch.setattr(sampling, "encoded", lambda bundle, request, text: {"text": text})
    monkeypatch.setattr(sampling, "open_ahead", lambda *_: None)
    monkeypatch.setattr(
        sampling,
        "composed",
        lambda denoiser, conds, uncond, *_: lambda x, sigma: ([cond["text"] for cond, _ in conds], uncond["text"]),
    )
    bundle: Any = SimpleNamespace(masked=False, denoiser=None)

    def calls(request: Options, plan: Plan) -> list[Any]:
        denoise = sampling.denoise(bundle, request, plan)
        return [denoise(None, sigma) for sigma in plan.sigmas[plan.first : -1]]

    return calls


def plan(steps: int, first: int = 0, passed: int | None = None) -> Plan:
    return Plan(tuple(float(steps - i) for i in range(steps + 1)), (4, 8, 8), first=first, passed=passed)


def test_a_second_pass_goes_on_where_the_first_one_ended(heard: Any) -> None:
    """Steps and shares are those that are run, as in the web UI, whose second pass runs all of its own."""
    request = Options(prompt="[a:b:0.5] [c:d:1.5] [e:f:8] [g:h:14] AND x", negative_prompt="[y:z:1.0]")
    first = heard(request, plan(10))
    assert [texts[0] for texts, _ in first] == [
        f"{'a' if i < 6 else 'b'} c {'e' if i < 9 else 'f'} g" for i in range(10)
    ]
    assert {negative for _, negative in first} == {"y"}
    # the last six of ten steps are run: their middle is the share 1.5, the fourth of them step 14
    second = heard(request, plan(10, first=4, passed=10))
    assert [texts for texts, _ in second] == [
        [f"b {'c' if i < 4 else 'd'} f {'g' if i < 5 else 'h'}", "x"] for i in range(6)
    ]
    assert {negative for _, negative in second} == {"z"}


def test_a_given_picture_hears_the_schedule_of_all_steps(heard: Any) -> None:
    request = Options(prompt="[a:b:0.5]")
    assert [texts for texts, _ in heard(request, plan(10, first=4))] == [["a"], ["a"], ["b"], ["b"], ["b"], ["b"]]
    assert [texts for texts, _ in heard(request, plan(10, first=8))] == [["b"], ["b"]]


def test_words_as_they_are_typed_do_not_change(heard: Any) -> None:
    request = Options(prompt="[a:b:0.5]", syntax="plain")
    assert heard(request, plan(4, first=2, passed=4)) == [(["[a:b:0.5]"], "")] * 2

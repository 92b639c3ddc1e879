"""Kinds: what clients may say, and that the list is the command line's."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from chashka.app import kinds
from chashka.app.settings import Settings
from chashka.checkpoints import write
from chashka.cli import main
from chashka.errors import InputError
from chashka.request import LONGEST_PROMPT

NO_KINDS = {
    "again": "draws what a file says; what a server drew has its job",
    "models": "looks at models, and keeps files that the person at the machine has",
    "doctor": "looks at the installation",
    "data": "makes training data of packages: the operator's work, before there is anything to serve",
    "export": "makes a model of trained weights: the operator's work",
    "evaluate": "measures models",
    "serve": "is the server",
    "studio": "is the server, with a window",
    "jobs": "looks at jobs, and stops them",
    "gallery": "looks at pictures that are there, and files them",
    "verify": "looks at a file",
    "keys": "administration",
    "backup": "administration",
    "restore": "administration",
    "options": "looks at what can be said",
}
"""Commands that no job does, each with the reason."""
SETTINGS = Settings(slots=1)
GRAMMAR = "stable_diffusion-teacup"
"""A model whose prompts have brackets."""
PROMPT = {"prompt": "чашка"}
SIZE = {"init": (256, 256)}


def check(kind: str, said: dict[str, Any], inputs: dict[str, tuple[int, int]] | None = None) -> dict[str, Any]:
    return kinds.check(kind, said, inputs or {}, SETTINGS).fields


def test_every_command_that_makes_something_is_a_kind() -> None:
    assert isinstance(main, click.Group)
    done = {kind.command.split()[0] for kind in kinds.KINDS.values()}
    commands = set(main.commands)
    assert done <= commands
    assert commands - done <= NO_KINDS.keys(), "a new command: give it a kind, or say here why it needs none"
    for kind in kinds.KINDS.values():
        name, *flags = kind.command.split()
        assert {word for option in main.commands[name].params for word in option.opts} >= set(flags)


def test_what_is_stored_is_complete_and_json() -> None:
    checked = kinds.check("draw", PROMPT, {}, SETTINGS)
    assert checked.fields["model"] == SETTINGS.model
    assert checked.fields["prompt"] == "чашка" and 0 <= checked.fields["seed"] < 2**32
    assert json.loads(json.dumps(checked.fields)) == checked.fields
    assert checked.texts == ("чашка",) and checked.pictures == 1 and checked.cost == 50 * 256 * 256
    assert check("draw", PROMPT)["seed"] != check("draw", PROMPT)["seed"]
    again = kinds.check("draw", checked.fields, {}, SETTINGS)  # a client may send a job's fields back
    assert again == checked


@pytest.mark.parametrize(
    ("kind", "said", "inputs"),
    [
        ("edit", PROMPT, SIZE),
        ("edit", PROMPT, SIZE | {"mask": (64, 64)}),
        ("vary", {}, SIZE),
        ("vary", {"strength": "subtle", "n": 4}, SIZE),
        ("mix", {"mix": [{"picture": 0, "weight": 0.6}, {"text": "чайник", "weight": 0.4}]}, {"picture 0": (9, 9)}),
        ("extend", {"left": 64}, SIZE),
        ("extend", {"left": 64, "prompt": "чашка"}, SIZE),
        ("draw", PROMPT | {"subseed_strength": 0.2}, {}),
        ("draw", {"prompt": "{red|blue} cup", "choices": "random", "n": 3}, {}),
        ("draw", {"prompt": "{red|blue} cup", "choices": "all", "n": 2}, {}),
        ("upscale", {"by": 4}, SIZE),
        ("svg", {}, SIZE),
    ],
)
def test_fields_can_be_sent_back(kind: str, said: dict[str, Any], inputs: dict[str, tuple[int, int]]) -> None:
    fields = check(kind, said, inputs)
    assert check(kind, fields, inputs) == fields


def test_choices_are_made_when_a_job_is_accepted() -> None:
    fields = check("draw", {"prompt": "{red|blue} cup", "choices": "random", "n": 8, "seed": 3})
    assert len(fields["prompts"]) == 8 and set(map(tuple, fields["prompts"])) == {("red cup", ""), ("blue cup", "")}
    checked = kinds.check("draw", {"prompt": "{red|blue} cup", "choices": "all", "n": 2}, {}, SETTINGS)
    assert checked.pictures == 4 and {"red cup", "blue cup"} <= set(checked.texts)
    assert "prompts" not in check("draw", {"prompt": "{red|blue} cup"})


def test_choices_of_a_negative_prompt_are_made_too() -> None:
    said = {"prompt": "{red|blue} cup", "negative_prompt": "{tea|milk}", "seed": 3}
    fields = check("draw", said | {"choices": "all"})
    assert fields["prompts"] == [[a, b] for a in ("red cup", "blue cup") for b in ("tea", "milk")]
    drawn = check("draw", said | {"choices": "random", "n": 8})["prompts"]
    assert {(a, b) for a, b in drawn} == {("red cup", "tea"), ("blue cup", "milk")}, "by the same seed"
    checked = kinds.check("draw", said | {"choices": "all", "guidance_scale": 0.5}, {}, SETTINGS)
    assert {"tea", "milk", "red cup"} <= set(checked.texts), "guidance turns towards it"
    with pytest.raises(InputError, match="prompt: more than 3 combinations"):
        kinds.check("draw", said | {"choices": "all"}, {}, replace(SETTINGS, max_expansions=3))


@pytest.mark.parametrize(
    ("kind", "said", "inputs", "message"),
    [
        ("paint", PROMPT, {}, "kind: 'paint' is not possible; allowed: draw, edit, "),
        ("draw", {}, {}, "prompt: missing"),
        ("draw", {"model": GRAMMAR}, {}, "prompt: missing"),
        ("draw", {"prompt": ""}, {}, "prompt: '' is not possible; allowed: text of 1 to 10000 characters"),
        ("draw", PROMPT | {"stpes": 3}, {}, "stpes: there is no such field; allowed: steps"),
        ("draw", PROMPT | {"self": 3}, {}, "self: there is no such field"),
        ("draw", PROMPT | {"model": "../etc"}, {}, "model: '../etc' is not possible; allowed: the name"),
        ("draw", PROMPT | {"model": "./m"}, {}, "model: './m' is not possible"),
        ("draw", PROMPT | {"model": "a\\b"}, {}, "model: "),
        ("draw", PROMPT | {"model": "m.ckpt"}, {}, "model: 'm.ckpt' is not possible"),
        ("draw", PROMPT | {"model": ["m"]}, {}, "model: ['m'] is not possible"),
        ("draw", PROMPT | {"model": "no-such"}, {}, "model: 'no-such' does not exist; use one of kandinsky-teacup"),
        ("draw", PROMPT | {"steps": 151}, {}, "steps: 151 is not possible; allowed: at most 150 on this server"),
        ("draw", PROMPT | {"hires_scale": 2, "hires_steps": 200}, {}, "hires_steps: 200 is not possible"),
        ("draw", PROMPT | {"n": 17}, {}, "n: 17 is not possible; allowed: at most 16"),
        ("draw", PROMPT | {"width": 2048, "height": 2048, "hires_scale": 3}, {}, "hires_scale: "),
        ("draw", PROMPT | {"width": 2048, "n": 16, "steps": 150, "hires_scale": 1.0001}, {}, "n: 16 pictures of"),
        ("draw", {"prompt": "{a|b|c|d|e} {a|b|c|d}", "choices": "all"}, {}, "n: 20 is not possible"),
        (
            "draw",
            {"prompt": "{" * 17 + "a" + "}" * 17, "choices": "all"},
            {},
            "prompt: choices in { } are nested more than 16",
        ),
        ("draw", {"prompt": "{" * 500, "choices": "random"}, {}, "prompt: choices in { } are nested more than 16"),
        ("draw", {"prompt": "{a|b}" * 300, "choices": "all"}, {}, "prompt: more than 256 combinations"),
        ("draw", {"prompt": "[" * 1990, "model": GRAMMAR}, {}, "prompt: brackets are nested more than 16 deep"),
        (
            "draw",
            PROMPT | {"negative_prompt": "(" * 17, "model": GRAMMAR},
            {},
            "prompt: brackets are nested more than 16",
        ),
        ("draw", {"prompt": "__animals__", "choices": "all"}, {}, "prompt: there is no wildcard file 'animals'"),
        ("draw", PROMPT | {"choices": "some"}, {}, "choices: 'some' is not possible"),
        ("draw", PROMPT, {"mask": (1, 1)}, "inputs: mask has no picture"),
        (
            "draw",
            PROMPT,
            {"photo": (1, 1)},
            "inputs: 'photo' is not possible for draw; allowed: init, mask, picture 0,",
        ),
        ("draw", {"mix": [{"picture": 0, "weight": 1}]}, {}, "mix: picture 0 is not among the inputs"),
        ("edit", PROMPT, {}, "inputs: init is missing"),
        ("vary", PROMPT, SIZE, "prompt: vary takes none"),
        ("mix", {}, {}, "mix: missing"),
        ("mix", {"mix": [{"picture": 1, "weight": 1}]}, {"picture 0": (9, 9)}, "mix: picture 1 is not among"),
        ("mix", {"mix": [{"text": "a", "weight": 1}]}, {"picture 1": (9, 9)}, "inputs: picture 1 leave a gap"),
        ("extend", PROMPT, SIZE, "left: no side was given"),
        ("extend", PROMPT | {"left": -1}, SIZE, "left: -1 is not possible"),
        ("extend", PROMPT | {"left": 2000}, SIZE, "left: the result would have 2256x256 pixels"),
        ("draw", PROMPT | {"loras": [{"name": "a", "weight": 1}]}, {}, "loras: this model takes none"),
        ("draw", PROMPT | {"loras": "a"}, {}, "loras: 'a' is not possible; allowed: a list"),
        ("draw", PROMPT | {"vae": "a"}, {}, "vae: this model takes none"),
        ("draw", PROMPT | {"vae": ["a"]}, {}, "vae: ['a'] is not possible; allowed: a name"),
        ("upscale", {"by": 3}, SIZE, "by: 3 is not possible; allowed: 2 or 4"),
        ("upscale", {"by": 2, "prompt": "a"}, SIZE, "prompt: there is no such field"),
        ("upscale", {"by": 4}, {"init": (600, 600)}, "by: 5760000 is not possible; allowed: at most 4200000 pixels"),
        ("svg", {}, {}, "inputs: init is missing"),
        ("train", {"stage": "unet"}, {}, "data: None is not possible"),
        ("train", {"stage": "unet", "data": "../x"}, {}, "data: '../x' is not possible; allowed: a name"),
        ("train", {"stage": "unet", "data": "x"}, {}, "data: 'x' does not exist; there is none"),
        (
            "train",
            {"stage": "unet", "recipe": "/etc/passwd"},
            {},
            "recipe: '/etc/passwd' is not possible; allowed: unet",
        ),
        ("train", {"stage": "paint"}, {}, "stage: 'paint' is not possible"),
    ],
)
def test_what_is_refused(kind: str, said: dict[str, Any], inputs: dict[str, tuple[int, int]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check(kind, said, inputs)
    text = str(caught.value)
    assert text.startswith(message) and "\n" not in text


def test_prompts_without_a_grammar_have_no_brackets() -> None:
    for said in ({"prompt": "(" * 40}, {"prompt": "(" * 40, "model": GRAMMAR, "syntax": "plain"}):
        assert check("draw", said)["prompt"] == "(" * 40
    assert check("draw", {"prompt": "(" * 16 + "a" + ")" * 16, "model": GRAMMAR})


def test_stable_diffusion_needs_no_words() -> None:
    for said in ({"prompt": ""}, {"prompt": "{|cup}", "choices": "all", "n": 2}):
        assert check("draw", said | {"model": GRAMMAR})["prompt"] == said["prompt"]
    assert check("edit", {"prompt": "", "model": GRAMMAR}, SIZE)["prompt"] == ""
    with pytest.raises(InputError, match="prompt: '' is not possible"):
        check("draw", {"prompt": "{|cup}", "choices": "all", "n": 2})


def test_the_servers_own_limits_count() -> None:
    tight = replace(SETTINGS, max_prompt=10, max_steps=5, max_n=2, max_pixels=100_000)
    for said, message in (
        ({"prompt": "a" * 11}, "prompt: 11"),
        ({"prompt": "a", "negative_prompt": "a" * 11}, "prompt: 11"),
        ({"prompt": "a", "steps": 6}, "steps: 6"),
        ({"prompt": "a", "n": 3}, "n: 3"),
        ({"prompt": "a", "width": 512}, "width: 262144"),
        ({"mix": [{"text": "a" * 11, "weight": 1}]}, "prompt: 11"),
    ):
        with pytest.raises(InputError, match=f"{message}.*is not possible; allowed: at most"):
            kinds.check("draw", said, {}, tight)
    with pytest.raises(InputError, match="prompt: more than 3 combinations; allowed: at most 3"):
        kinds.check("draw", {"prompt": "{a|b|c|d}", "choices": "all"}, {}, replace(SETTINGS, max_expansions=3))


def test_a_server_takes_as_long_prompts_as_the_library() -> None:
    assert SETTINGS.max_prompt == LONGEST_PROMPT
    assert len(check("draw", {"prompt": "a " * 4_998 + "cups", "model": GRAMMAR})["prompt"]) == 10_000
    with pytest.raises(InputError, match="10001 characters"):
        check("draw", {"prompt": "a " * 4_998 + "a cup"})


def test_what_choices_come_to_is_not_endless() -> None:
    """The policy reads all of it before a job is accepted."""
    words = "a red cat on a green table, " * 300
    said = {"prompt": words + "{a|b|c|d}", "choices": "all"}
    assert kinds.check("draw", said, {}, SETTINGS).pictures == 4
    with pytest.raises(
        InputError, match=r"^prompt: 142850 is not possible; allowed: at most 64000 characters in all prompts"
    ):
        kinds.check("draw", said | {"prompt": words + "{a|b|c|d}{e|f|g|h}"}, {}, SETTINGS)


def test_weights_in_a_prompt_are_looked_at_when_a_job_is_accepted(tmp_path: Path) -> None:
    """Those of what its choices came to: before, a weight may be a choice."""
    keys = {"model.diffusion_model.input_blocks.0.0.weight": np.zeros((4, 4), np.float32)}
    write(tmp_path / "tiny.safetensors", keys, {})
    said = {"prompt": "a cup <lora:ink:{0.5|1}>", "choices": "all", "model": "tiny"}
    settings = replace(SETTINGS, models=tmp_path)
    assert kinds.check("draw", said, {}, settings).pictures == 2
    with pytest.raises(InputError, match=r"^prompt: <lora:ink>: 'much' is no weight; allowed: a number"):
        kinds.check("draw", said | {"prompt": "a cup <lora:ink:{0.5|much}>"}, {}, settings)
    assert check("draw", {"prompt": "a cup <lora:ink:much>"}), "a model that takes no LoRA reads no weight"


def test_loras_are_found_by_name_alone(tmp_path: Path) -> None:
    from chashka.adapters import embeddings, loras
    from chashka.families import Weight

    (tmp_path / "loras").mkdir()
    file = tmp_path / "loras" / "ink.safetensors"
    file.touch()
    assert loras([("ink", 0.5)], "", tmp_path, False, paths=False) == [(file, Weight.of(0.5))]
    for name in (str(file), "../loras/ink", "ink.safetensors"):
        with pytest.raises(InputError, match=r"does not exist; allowed: ink$"):
            loras([(name, 0.5)], "", tmp_path, False, paths=False)
    with pytest.raises(InputError, match=r"there are none$"):
        embeddings([str(file)], [], tmp_path, paths=False)
    assert loras([], "<lora:no:1> a cup", tmp_path, False, paths=False) == []

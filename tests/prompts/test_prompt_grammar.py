"""Weights, schedules, AND and choices in prompts: the rules of the web UI, and texts that no rule fits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chashka.errors import InputError
from chashka.families.stable_diffusion.options import Options
from chashka.prompts import composition, emphasis, nesting, schedules, tags, wildcards

# of the web UI's own docstring and tests
EMPHASIS: list[tuple[str, list[tuple[Any, float]]]] = [
    ("normal text", [("normal text", 1.0)]),
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    (r"\(literal\]", [("(literal]", 1.0)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [("a ", 1.0), ("house", 1.5730000000000004), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55),
         (", sun, ", 1.1), ("sky", 1.4641000000000006), (".", 1.1)],
    ),
    ("a [b] c", [("a ", 1.0), ("b", 1 / 1.1), (" c", 1.0)]),
    ("a BREAK b", [("a", 1.0), (None, 1.0), ("b", 1.0)]),
    ("BREAKFAST", [("BREAKFAST", 1.0)]),
    ("", [("", 1.0)]),
    ("a:b", [("a:b", 1.0)]),
    ("x) y]", [("x) y]", 1.0)]),
    ("(a:-0.5)", [("a", -0.5)]),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "wanted"), EMPHASIS)
def test_emphasis(prompt: str, wanted: list[tuple[Any, float]]) -> None:
    found = emphasis.pieces(prompt)
    assert [piece.text for piece in found] == [text for text, _ in wanted]
    assert [piece.weight for piece in found] == pytest.approx([weight for _, weight in wanted])


@pytest.mark.parametrize(
    ("prompt", "value"),
    [
        (f"(a:{'9' * 400})", "a weight of inf"),
        ("(a:1e5) (b:-100.5)", "a weight of -100.5"),
        ("((a:99))", "a weight of 108.9"),
        ("(((a:20):-20))", "a weight of -440"),
        (f"a AND b :{'9' * 400}", "AND with a weight of inf"),
        ("a AND b :-101", "AND with a weight of -101"),
        (f"[a:b:{'9' * 400}]", "a change at step inf"),
        ("[a:b:-1000001]", "a change at step -1000001"),
        (f"x (a:1.2) [c:[a:b:{'9' * 400}]:3]", "a change at step inf"),
    ],
)
def test_numbers_have_limits(prompt: str, value: str) -> None:
    with pytest.raises(InputError, match=rf"^prompt: {re.escape(value)} is not possible; allowed: from -\d+ to \d+"):
        Options(prompt=prompt)
    assert Options(prompt=prompt, syntax="plain").prompt == prompt, "letters say nothing"


def test_large_numbers_that_are_allowed() -> None:
    assert emphasis.pieces("(a:100)")[0].weight == 100
    assert composition.parts("a AND b :-100")[1].weight == -100
    assert schedules.by_step("[a:b:1000000]", 2) == ["a", "a"]
    assert schedules.by_step("[a:b:-3]", 2) == ["b", "b"]


def test_plain_words() -> None:
    assert emphasis.plain(r"a (red:1.2) [cat] BREAK \(x\)") == "a red cat (x)"


@pytest.mark.parametrize(
    ("prompt", "steps", "wanted"),
    [
        ("test", 3, [(0, "test")]),
        ("a [b:3]", 10, [(0, "a "), (3, "a b")]),
        ("a [b: 3]", 10, [(0, "a "), (3, "a b")]),
        ("a [[[b]]:2]", 10, [(0, "a "), (2, "a [[b]]")]),
        ("[(a:2):3]", 10, [(0, ""), (3, "(a:2)")]),
        ("a [b : c : 1] d", 10, [(0, "a b  d"), (1, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", 10, [(0, "abe"), (1, "ace"), (2, "ade")]),
        ("a [unbalanced", 10, [(0, "a [unbalanced")]),
        ("a [b:.5] c", 10, [(0, "a  c"), (5, "a b c")]),
        ("a [{b|d{:.5] c", 10, [(0, "a  c"), (5, "a {b|d{ c")]),
        ("((a][:b:c [d:3]", 10, [(0, "((a][:b:c "), (3, "((a][:b:c d")]),
        ("[a|(b:1.1)]", 4, [(0, "a"), (1, "(b:1.1)"), (2, "a"), (3, "(b:1.1)")]),
        ("[fe|]male", 4, [(0, "female"), (1, "male"), (2, "female"), (3, "male")]),
        ("[fe|||]male", 5, [(0, "female"), (1, "male"), (4, "female")]),
        ("a [b::0.5]", 4, [(0, "a b"), (2, "a ")]),
    ],
)
def test_schedules(prompt: str, steps: int, wanted: list[tuple[int, str]]) -> None:
    """The web UI's own examples (``get_learned_conditioning_prompt_schedules``), as stretches."""
    assert schedules.runs(schedules.by_step(prompt, steps)) == wanted


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("[a:b:1]", [(0, "a"), (1, "b")]),
        ("[a:b:1.0]", [(0, "a")]),
        ("[a:b:1.]", [(0, "a")]),
        ("[a:b:.2]", [(0, "a"), (2, "b")]),
        ("[a:b:1.5]", [(0, "a")]),
        ("[a:b:0]", [(0, "b")]),
        ("[a:b:0.0]", [(0, "b")]),
        ("[a:b:-0.5]", [(0, "b")]),
        ("[a:b:1e0]", [(0, "a"), (1, "b")]),
        ("[a:b:5.e-1]", [(0, "a"), (5, "b")]),
        ("[a:b:99.5]", [(0, "a")]),
    ],
)
def test_a_point_makes_a_share(prompt: str, wanted: list[tuple[int, str]]) -> None:
    """The web UI since 1.6: with a point a number is a share of the steps, however large; without one, a step."""
    assert schedules.runs(schedules.by_step(prompt, 10)) == wanted


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a [b:.5] c", [(0, "a b c")]),
        ("a [b:1.5] c", [(0, "a  c"), (5, "a b c")]),
        ("[a:b:1.0]", [(0, "b")]),
        ("[a:b:2.0]", [(0, "a")]),
        ("[a:b:0.9]", [(0, "b")]),
        ("[a:b:8]", [(0, "b")]),
        ("[a:b:20]", [(0, "b")]),
        ("[a:b:23]", [(0, "a"), (3, "b")]),
        ("[a:b:30]", [(0, "a")]),
        ("[a:[b:c:1.5]:0.5]", [(0, "b"), (5, "c")]),
        ("[a::0.5] d", [(0, " d")]),
        (
            "[a|b|c]",
            [(0, "a"), (1, "b"), (2, "c"), (3, "a"), (4, "b"), (5, "c"), (6, "a"), (7, "b"), (8, "c"), (9, "a")],
        ),
    ],
)
def test_schedules_go_on_in_a_second_pass(prompt: str, wanted: list[tuple[int, str]]) -> None:
    """The web UI's examples with ``hires_steps``, and more: shares from 1 to 2 are its own, steps are counted on."""
    assert schedules.runs(schedules.by_step(prompt, 10, passed=20)) == wanted


def test_composition() -> None:
    assert composition.parts("a cat") == [composition.Part("a cat")]
    assert composition.parts("a cat :1.2 AND a dog AND x:0.5") == [
        composition.Part("a cat", 1.2),
        composition.Part("a dog"),
        composition.Part("x", 0.5),
    ]
    assert composition.parts("SAND castle") == [composition.Part("SAND castle")]
    assert composition.parts("a:2") == [composition.Part("a:2")], "a weight alone is no composition"


FILES = {"animal": ["cat", "dog", "{red|blue} fox"], "loop": ["__loop__"], "a/b": ["x"]}
COLOURS = {
    "colour-cold": ["blue", "red", "blue"],
    "colour-warm": ["red", "gold"],
    "plants/none": [],
    "plants/tree": ["oak", "{red|blue|gold} oak"],
}


def every(prompt: str, files: wildcards.Files | None = None, most: int = wildcards.MOST) -> list[str]:
    return [text for (text,) in wildcards.combinations([prompt], files, most)]


def test_combinations() -> None:
    assert every("a {x|y} {1|2}", FILES) == ["a x 1", "a x 2", "a y 1", "a y 2"]
    assert every("__animal__!", FILES) == ["cat!", "dog!", "red fox!", "blue fox!"]
    assert every("{2$$a|b|c}") == ["a, b", "a, c", "b, c"]
    assert every("{1-2$$ and $$a|b}") == ["a", "b", "a and b"]
    assert every("no choice") == ["no choice"]
    assert every("__a/b__{|z}", FILES) == ["x", "xz"]


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("{2-$$a|b|c}", ["a, b", "a, c", "b, c", "a, b, c"]),
        ("{-2$$ and $$a|b|c}", ["a", "b", "c", "a and b", "a and c", "b and c"]),
        ("{4-$$a|b}", ["a, b"]),
        ("{ 1 - 2 $$a|b}", ["a", "b", "a, b"]),
        ("{0-1$$a}", ["", "a"]),
        ("{-$$a|b}", ["-$$a", "b"]),
        ("{2$${2$$ and $$a|b}|c}", ["a and b, c"]),
        ("{2-$$__colour-warm__}", ["red, gold"]),
        ("{-2$$__colour-cold__|x}", ["blue", "red", "x", "blue, x", "red, x"]),
        ("{2$$ and $$__colour*__}", ["blue and red", "blue and gold", "red and gold"]),
    ],
)
def test_how_many_may_be_left_open(prompt: str, wanted: list[str]) -> None:
    """dynamic-prompts' SYNTAX.md, "Omitting bounds" and "Wildcards in variants"."""
    assert every(prompt, COLOURS) == wanted
    drawn = {wildcards.resolved(prompt, seed, COLOURS) for seed in range(60)}
    assert {tuple(sorted(re.split(", | and ", one))) for one in drawn} == {
        tuple(sorted(re.split(", | and ", one))) for one in wanted
    }


def test_as_many_are_drawn_as_there_are() -> None:
    """Every number from low to high is as likely; more than there are is no number."""
    drawn = [wildcards.resolved("{1-9$$a|b}", seed).count(",") for seed in range(400)]
    assert 150 < drawn.count(0) < 250


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("__colour*__", ["blue", "red", "gold"]),
        ("__*old__", ["blue", "red"]),
        ("__*__", ["blue", "red", "gold", "oak", "red oak", "blue oak", "gold oak"]),
        ("__**__", ["blue", "red", "gold", "oak", "red oak", "blue oak", "gold oak"]),
        ("__plants/*__", ["oak", "red oak", "blue oak", "gold oak"]),
        ("__tree__", ["oak", "red oak", "blue oak", "gold oak"]),
        ("__colour-cold__ __colour-warm__", ["blue red", "blue gold", "red red", "red gold"]),
    ],
)
def test_names_of_many_files(prompt: str, wanted: list[str]) -> None:
    """Of all files that fit, in their order, each line once; a name alone is looked for in every folder if it has no file."""
    assert every(prompt, COLOURS) == wanted
    assert {wildcards.resolved(prompt, seed, COLOURS) for seed in range(200)} == set(wanted)


def test_combinations_of_two_texts() -> None:
    """The negative prompt's change fastest; all of them together are counted."""
    assert list(wildcards.combinations(["a {x|y}", "{1|2}"])) == [
        ("a x", "1"),
        ("a x", "2"),
        ("a y", "1"),
        ("a y", "2"),
    ]
    assert list(wildcards.combinations(["a {x|y}", ""])) == [("a x", ""), ("a y", "")]
    assert len(list(wildcards.combinations(["{a|b}" * 4, "{a|b}" * 4], most=256))) == 256
    for texts in (["{a|b}" * 4, "{a|b}" * 5], ["{a|b}" * 300, "{a|b}" * 300]):
        with pytest.raises(InputError, match="more than 256 combinations; allowed: at most 256"):
            list(wildcards.combinations(texts, most=256))


def test_random_choices() -> None:
    prompt = "a {red|green|blue} __animal__"
    drawn = [wildcards.resolved(prompt, seed, FILES) for seed in range(40)]
    assert drawn == [wildcards.resolved(prompt, seed, FILES) for seed in range(40)]
    assert len(set(drawn)) > 6 and set(drawn) <= set(every(prompt, FILES))
    heavy = [wildcards.resolved("{9::a|1::b}", seed) for seed in range(200)]
    assert 150 < heavy.count("a") < 200
    assert wildcards.resolved("{0::a|0::b}", 1) in ("a", "b")
    assert wildcards.has_choices("{a|b}") and not wildcards.has_choices("a b (c:1.2)")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("__nothing__", "no wildcard file 'nothing'; there are: a/b, animal, loop"),
        ("__no*__", r"no wildcard file 'no\*'; there are: a/b, animal, loop"),
        ("{2$$__loop__}", "choices and wildcard files are nested more than 16 deep; allowed: at most 16"),
        ("{a|b", "never closed"),
        ("a}", "closes what was not opened"),
        ("__loop__", "choices and wildcard files are nested more than 16 deep; allowed: at most 16"),
    ],
)
def test_choices_that_cannot_be_made(prompt: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wildcards.resolved(prompt, 1, FILES)
    with pytest.raises(InputError, match=message):
        every(prompt, FILES)


def test_too_many_combinations() -> None:
    with pytest.raises(InputError, match="more than 100000 combinations"):
        for _ in wildcards.combinations(["{0|1|2|3|4|5|6|7|8|9}" * 6]):
            pass


def test_a_few_combinations_are_enough_to_know_that_there_are_too_many() -> None:
    """Choices within choices are not written out first: these would be 2 to the 300th, and 5 to the 60th."""
    for prompt in ("{a|b}" * 300, "{" + "{a|b|c|d|e}" * 60 + "|x}", "{3$$" + "|".join(["{a|b}" * 40] * 8) + "}"):
        with pytest.raises(InputError, match="more than 256 combinations; allowed: at most 256"):
            for _ in wildcards.combinations([prompt], most=256):
                pass
    assert len(every("{a|b}" * 8, most=256)) == 256
    assert every("{a}" * 660) == ["a" * 660]


def test_more_than_there_are_is_all_of_them() -> None:
    assert every("{3$$a|b}") == ["a, b"] == [", ".join(sorted(wildcards.resolved("{3$$a|b}", 1).split(", ")))]


@pytest.mark.parametrize(
    "bracketed",
    [
        lambda deep: wildcards.resolved("{" * deep + "a" + "}" * deep, 1),
        lambda deep: wildcards.resolved("{a|" * deep + "b" + "|c}" * deep, 1),
        lambda deep: "".join(every("{" * deep + "a" + "}" * deep)),
        lambda deep: wildcards.resolved("{" * (deep - 1) + "__line__" + "}" * (deep - 1), 1, {"line": ["a"]}),
        lambda deep: wildcards.resolved("{2$$" * (deep - 1) + "__line__" + "}" * (deep - 1), 1, {"line": ["a"]}),
        lambda deep: "".join(every("{2$$" * (deep - 1) + "__line__" + "}" * (deep - 1), {"line": ["a"]})),
        lambda deep: schedules.by_step("(" * deep + "a" + ")" * deep, 4)[0],
        lambda deep: schedules.by_step("[" * deep + "a" + "]" * deep, 4)[0],
        lambda deep: schedules.by_step("([" * (deep // 2) + "[" * (deep % 2) + "a", 4)[0],
        lambda deep: schedules.by_step("[" * deep + "a" + ":9]" * deep, 4)[0] + "a",
    ],
)
def test_sixteen_levels_are_read_and_no_more(bracketed: Callable[[int], str]) -> None:
    assert "a" in bracketed(16) or "b" in bracketed(16)
    for deep in (17, 500):
        with pytest.raises(InputError, match="nested more than 16 deep; allowed: at most 16; take some of them out"):
            bracketed(deep)


def test_brackets_that_are_never_closed_are_read_once() -> None:
    """Each of them made everything behind it be read twice."""
    started = time.perf_counter()
    text = "(" * 8 + "[" * 7 + "a (b) [c|d] " * 100
    assert schedules.by_step(text, 2)[0] == text.replace("[c|d]", "c")
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("blank", [" ", "\n", " :", "\u3000"])
def test_blanks_take_no_square_of_the_time(blank: str) -> None:
    started = time.process_time()
    many = blank * (9_000 // len(blank))
    assert composition.parts(f"a{many}AND b{many}:2 ")[1] == composition.Part(f"b{many}".strip(), 2.0)
    assert [piece.text for piece in emphasis.pieces(f"a{many}b BREAK {many}c")][1:2] == [None]
    Options(prompt=f"a{many}b AND c", negative_prompt=f"a{many}BREAK{many}"[:10_000])
    assert time.process_time() - started < 1


def test_breaks_take_the_blanks_around_them() -> None:
    texts = [piece.text for piece in emphasis.pieces(" a  BREAK b BREAK  BREAK\nc ")]
    assert texts == [" a", None, "b", None, "", None, "c "]


def test_thirty_two_prompts_are_joined_and_no_more() -> None:
    assert len(composition.parts(" AND ".join(["a"] * 32))) == 32
    with pytest.raises(InputError, match=r"^prompt: AND joins 33 prompts; allowed: at most 32, .*; join fewer$"):
        Options(prompt=" AND ".join(["a"] * 33))


def test_a_number_of_very_many_digits_is_refused() -> None:
    for prompt in ("{%s::a|b}", "{%s$$a|b}", "{1-%s$$a|b}", "{%s-$$a|b}", "{-%s$$a|b}"):
        assert wildcards.resolved(prompt % "12345", 1)
        with pytest.raises(InputError, match="too long a number; allowed: at most 20 digits"):
            wildcards.resolved(prompt % ("9" * 400), 1)


@given(st.text(alphabet="ab ()[]:|\\.12{}_AND\n", max_size=40))
def test_any_text_is_read(text: str) -> None:
    """Nothing but choices can be wrong, and those say so in one line."""
    assert all(piece.weight == piece.weight for piece in emphasis.pieces(text))
    if text.count("(") + text.count("[") <= nesting.DEEPEST:
        assert len(schedules.by_step(text, 3)) == 3
    assert composition.parts(text)
    try:
        wildcards.resolved(text, 1)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("prompt", "rest", "found"),
    [
        ("a cup", "a cup", []),
        ("a  cup", "a  cup", []),
        ("a cup <lora:ink:0.7>, red", "a cup , red", [("<lora:ink>", 0.7)]),
        ("<lora:ink><lora:wash:-.5:1>cup", "cup", [("<lora:ink>", 1.0), ("<lora:wash>", (1.0, -0.5))]),
        ("<lora:ink:1> <lora:ink:2> <lyco:ink:3>", "", [("<lyco:ink>", 3.0)]),
        ("<lora:ink: 0.8 > <lora> <lora:>", "<lora> <lora:>", [("<lora:ink>", 0.8)]),
        ("<lora:ink:te=0.5:unet=1>", "", [("<lora:ink>", (1.0, 0.5))]),
        ("<lora:ink:unet=0.25>", "", [("<lora:ink>", (0.25, 1.0))]),
        ("<lora:ink:te=0.5>", "", [("<lora:ink>", 0.5)]),
        ("<lora:ink:0.8:0.5:te=0.1>", "", [("<lora:ink>", (0.5, 0.1))]),
        ("<lora:ink:0.8:0.5:8> <lora:wash: dyn = 8>", "", [("<lora:ink>", (0.5, 0.8)), ("<lora:wash>", 1.0)]),
    ],
)
def test_tags(prompt: str, rest: str, found: list[tuple[str, float | tuple[float, float]]]) -> None:
    """(U-Net, text encoder), or one number for both, as in the web UI's ``extra_networks_lora.py``."""
    words, tagged = tags.taken_out(prompt)
    assert words == rest
    both = [(name, (weight, weight) if isinstance(weight, float) else weight) for name, weight in found]
    assert [(str(tag), tuple(tag.weight)) for tag in tagged] == both


def test_what_tags_say_beyond_a_weight() -> None:
    _, (ink, wash, other) = tags.taken_out("<lora:ink:1:te=1:dyn=8:lbw=X> <lora:wash:1:1:8:9> <hypernet:ink:1>")
    assert ink.unread == ["dyn=8", "lbw=X"] and wash.unread == ["8", "9"]
    assert (str(other), other.lora) == ("<hypernet:ink>", False), "a LoRA of the same name is another thing"


@pytest.mark.parametrize("said", ["much", "", "1:nan", "te=0,5", "unet=inf", "1.0:x:unet=1"])
def test_a_weight_of_a_tag_is_a_number(said: str) -> None:
    for kind in ("lora", "lyco"):
        with pytest.raises(
            InputError, match=rf"^prompt: <{kind}:ink>: '.*' is no weight; allowed: a number, such as 0.8$"
        ):
            tags.check(f"a <{kind}:ink:{said}> cup")
    tags.check(f"<hypernet:ink:{said}> a cup")

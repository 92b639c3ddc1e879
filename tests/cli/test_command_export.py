"""``chashka export``: what --precision means."""

from __future__ import annotations

import pytest

from chashka.cli.export import chosen_precision
from chashka.errors import InputError
from chashka.families.kandinsky.opening import COMPONENTS


def test_without_it_nothing_is_chosen() -> None:
    assert chosen_precision(()) == {}


def test_one_component_differs_from_the_others_in_any_order() -> None:
    wanted = dict.fromkeys(COMPONENTS, "int8") | {"unet": "fp16"}
    assert chosen_precision(("int8", "unet=fp16")) == chosen_precision(("unet=fp16", "int8")) == wanted


def test_optional_components_count_where_they_are_given() -> None:
    assert chosen_precision(("picture=int8",), ("picture",)) == {"picture": "int8"}
    assert chosen_precision(("int8",), ("picture",)) == dict.fromkeys([*COMPONENTS, "picture"], "int8")


@pytest.mark.parametrize("word", ["int4", "judge=int8", "picture=int8", "=int8x", "unet="])
def test_what_does_not_exist_is_refused(word: str) -> None:
    with pytest.raises(InputError, match=r"precision: .* is not known; allowed are fp16, int8"):
        chosen_precision((word,))

"""Networks that take turns on a device that is too small for all of them, with a device that only counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_components import GOLDEN, STORED, unet_inputs
from torch import nn

from chashka.engines.torch_engine import TorchEngine
from chashka.engines.torch_residents import SPARE, Residents, free_bytes, residents_of
from chashka.errors import EngineError

pytestmark = pytest.mark.torch
META = torch.device("meta")


class Block(nn.Linear):
    """1000 bytes of weights."""

    def __init__(self) -> None:
        super().__init__(25, 10, bias=False)


class Card:
    """A device of some bytes: the meta device, which takes weights and gives none back, beside what lies on it."""

    def __init__(self, size: int) -> None:
        self.size, self.modules = size, [Block() for _ in range(3)]
        self.residents = Residents(META, lambda: self.size + SPARE - 1000 * len(self.there()))

    def there(self) -> list[int]:
        return [i for i, module in enumerate(self.modules) if module.weight.is_meta]


@pytest.fixture(autouse=True)
def back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The way back from the meta device, which has nothing to give."""
    own = nn.Module.to

    def to(module: nn.Module, *given: Any, **named: Any) -> nn.Module:
        if given == (torch.device("cpu"),):
            return module.to_empty(device="cpu")
        return own(module, *given, **named)

    monkeypatch.setattr(nn.Module, "to", to)
    yield


def test_all_stay_while_they_fit() -> None:
    card = Card(3000)
    for module in card.modules:
        card.residents.enter(module)
    assert card.there() == [0, 1, 2]


def test_the_least_recently_used_goes() -> None:
    card = Card(2000)
    first, second, third = card.modules
    for module in (first, second, first, third):
        card.residents.enter(module)
    assert card.there() == [0, 2], "the second was used before the first"
    card.residents.enter(second)
    assert card.there() == [1, 2]
    card.size = 1000
    card.residents.enter(first)
    assert card.there() == [0], "as many as it needs"


def test_where_nobody_knows_what_is_free_none_goes_before_it_must() -> None:
    card = Card(1000)
    card.residents.free = lambda: None
    for module in card.modules:
        card.residents.enter(module)
    assert card.there() == [0, 1, 2]
    assert card.residents.leave_alone(card.modules[1]) and card.there() == [1]
    assert not card.residents.leave_alone(card.modules[1])


def test_copies_that_share_weights_stay_together() -> None:
    residents, (first, twin, other) = Residents(torch.device("cpu"), lambda: 0), [Block() for _ in range(3)]
    twin.weight = first.weight
    for module in (first, twin):
        residents.enter(module)
    assert not residents.leave_alone(twin)
    residents.enter(other)
    assert residents.leave_alone(twin) and not residents.leave_alone(first)


def test_a_network_that_is_gone_is_no_longer_counted() -> None:
    card = Card(3000)
    card.residents.enter(card.modules.pop())
    assert not card.residents.leave_alone(card.modules[0])


def test_a_call_is_repeated_once_with_the_others_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine("cpu")
    wanted = engine.open(GOLDEN, STORED)(**unet_inputs())["out"]
    engine.residents = Residents(torch.device("cpu"), lambda: None)
    graph, other, calls = engine.open(GOLDEN, STORED), engine.open(GOLDEN, STORED), 0
    own = type(graph.module).forward

    def short(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return own(*given, **named)

    monkeypatch.setattr(nn.Module, "to", lambda module, *given: module)
    engine.residents.enter(other.module)
    monkeypatch.setattr(type(graph.module), "forward", short)
    assert (graph(**unet_inputs())["out"] == wanted).all() and calls == 2
    with pytest.raises(EngineError, match="CUDA out of memory"):
        graph(**unet_inputs())
    assert calls == 3, "there was nobody else to send away"


def test_a_cpu_needs_none_of_it() -> None:
    assert residents_of(torch.device("cpu")) is None and TorchEngine("cpu").residents is None
    assert free_bytes(META) is None

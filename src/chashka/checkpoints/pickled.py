"""What a pickle says, without Python's unpickler: a small stack machine that knows containers, numbers, texts and tensors.

Nothing in a file can run: no name in it is ever looked up. Of the names that a checkpoint may hold, those in ``BUILDERS`` stand for
functions written here, those in ``INERT`` become dead objects, and every other one is refused by name. The opcodes of persistent
objects, of old classes and of extension registries are refused, but for the one that torch stores its tensors by.

Format: the standard library's ``pickletools`` (which splits a stream into opcodes and executes none); what torch writes:
``torch/serialization.py`` and ``torch/_utils.py``.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast

from chashka.errors import WeightsError

MOST_OPCODES = 20_000_000
"""More than any checkpoint has: what is longer is refused before it fills the memory."""
_MARK = object()


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a file, ``module`` and ``name``; only ever compared."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Inert:
    """An object of a class that is not built: its ``name`` and the ``state`` it was given. TorchScript's modules are such."""

    name: Name
    state: Any = None


@dataclass(frozen=True, slots=True)
class StoragePlace:
    """A block of numbers stored under ``key``: ``numel`` of the type ``kind`` (``FloatStorage`` and so on)."""

    kind: str
    key: str
    numel: int


@dataclass(eq=False, slots=True)
class TensorPlace:
    """A tensor in a block: ``offset``, ``size`` and ``stride`` in numbers, as torch has them."""

    storage: StoragePlace
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Parameters(dict[str, TensorPlace]):
    """torch's ``ParameterDict``, of which the first embeddings of textual inversion are made: its parameters by name."""


INERT = frozenset(
    Name(*text.rsplit(".", 1))
    for text in (
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "numpy.dtypes.Float64DType",
        "_codecs.encode",
        "__builtin__.set",
    )
)
"""What old Stable Diffusion checkpoints, and the modules in old embeddings, hold beside their tensors."""
SCRIPT = "__torch__."
"""Classes of TorchScript archives (OpenAI's CLIP is one): dead objects whose state is kept."""


class Stream(Protocol):
    """What a pickle is read from."""

    def read(self, size: int = ..., /) -> bytes: ...

    def readline(self) -> bytes: ...


def load(stream: Stream, where: str) -> Any:
    """The object that one pickle in ``stream`` describes; the stream stands behind it afterwards.

    Dicts (ordered ones too), lists, tuples, sets, texts, bytes, numbers, None, ``TensorPlace`` and ``Inert``. Raises WeightsError,
    with ``where`` (the file) in it, for a name that is not allowed, and for what is no pickle.
    """
    machine = _Machine(where)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast("IO[bytes]", stream))):
            if count > MOST_OPCODES:
                raise _refused(where, f"it has more than {MOST_OPCODES:,} opcodes")
            if opcode.name == "STOP":
                return machine.pop()
            action = _ACTIONS.get(opcode.name)
            if action is None:
                raise _refused(where, f"the opcode {opcode.name} has no place in a checkpoint")
            action(machine, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise WeightsError(f"{where}: damaged or no checkpoint ({type(error).__name__}: {str(error)[:120]})") from error
    raise _refused(where, "it ends before it is complete")


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def since_mark(self) -> list[Any]:
        """Everything above the last mark, which goes too."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value should be")
        return self.stack[-1]

    def call(self, name: Any, arguments: Any) -> Any:
        """What an allowed name makes of its arguments."""
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise ValueError("something else than a name is called")
        if name in BUILDERS:
            return BUILDERS[name](*arguments)
        return Inert(name, arguments)

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Inert):
            return
        if type(target) is not dict:
            raise ValueError("items are set in something else than a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[key] = value

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Inert):
            return
        if not isinstance(target, list):
            raise ValueError("values are appended to something else than a list")
        target.extend(values)

    def build(self) -> None:
        """State for the object below it: kept by a dead one, left out where torch puts its own (``_metadata`` of a dict).

        Of a module's state only the parameters come, and only tensors may be such.
        """
        state, target = self.pop(), self.top()
        if isinstance(target, Inert):
            target.state = state
        elif isinstance(target, Parameters):
            held = state.get("_parameters") if isinstance(state, dict) else None
            if not isinstance(held, dict) or not all(isinstance(value, TensorPlace) for value in held.values()):
                raise ValueError("a module whose parameters are no tensors")
            target.update(held)
        elif not isinstance(target, dict | TensorPlace):
            raise ValueError("something that has no state is given one")

    def persistent(self) -> StoragePlace:
        """torch's blocks: ('storage', type, key, location, number of values), in old files with a view behind it."""
        given = self.pop()
        if not isinstance(given, tuple) or len(given) not in (5, 6) or given[0] != "storage":
            raise ValueError("a persistent object that is no storage")
        kind, key, numel = given[1], given[2], given[4]
        if not isinstance(kind, Name) or kind.module not in ("torch", "torch.storage") or not isinstance(key, str):
            raise ValueError("a storage of no known type")
        if len(given) == 6 and given[5] is not None:
            raise ValueError("a view of a storage; save the checkpoint again with a newer torch")
        return StoragePlace(kind.name, key, _count(numel))


def _name(machine: _Machine, module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name that is no text")
    found = Name(module, name)
    if found in BUILDERS or found in INERT or module.startswith(SCRIPT) or _is_type(found):
        return found
    raise _refused(
        machine.where, f"it names {str(found)[:100]}, which has no place among weights; nothing of it was run"
    )


def _is_type(name: Name) -> bool:
    """Names that only say a type: torch's storages and dtypes."""
    if name.module == "torch.storage":
        return name.name in ("UntypedStorage", "TypedStorage")
    return name.module == "torch" and (name.name.endswith("Storage") or name.name in DTYPES)


DTYPES = ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool")


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} where a size should be")
    return value


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorPlace:
    """``torch._utils._rebuild_tensor_v2``; what comes after the stride (gradient, hooks) says nothing about the numbers."""
    if not isinstance(storage, StoragePlace) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor without a storage")
    if len(size) != len(stride):
        raise ValueError("a tensor whose size and stride differ in length")
    return TensorPlace(storage, _count(offset), tuple(map(_count, size)), tuple(map(_count, stride)))


def _parameter(data: Any, *rest: Any) -> TensorPlace:
    if not isinstance(data, TensorPlace):
        raise ValueError("a parameter that is no tensor")
    return data


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return dict(pairs)


BUILDERS: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): _ordered,
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("torch.nn.modules.container", "ParameterDict"): lambda: Parameters(),
    Name("torch", "Size"): lambda values=(): tuple(map(_count, values)),
    Name("torch", "device"): lambda kind, *index: str(kind),
}
"""What is built, from arguments that are checked first."""


def _memoize(machine: _Machine, place: Any) -> None:
    machine.memo[len(machine.memo) if place is None else int(place)] = machine.top()


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def action(machine: _Machine, argument: Any) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))

    return action


def _reduce(machine: _Machine, argument: Any) -> None:
    arguments = machine.pop()
    machine.push(machine.call(machine.pop(), arguments))


def _new(machine: _Machine, argument: Any) -> None:
    arguments = machine.pop()
    name = machine.pop()
    machine.push(machine.call(name, arguments) if name in BUILDERS else Inert(_checked(name), arguments))


def _checked(name: Any) -> Name:
    if not isinstance(name, Name):
        raise ValueError("something else than a name is called")
    return name


def _global(machine: _Machine, argument: Any) -> None:
    module, _, name = argument.partition(" ")
    machine.push(_name(machine, module, name))


def _stack_global(machine: _Machine, argument: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(_name(machine, module, name))


def _dict(machine: _Machine, argument: Any) -> None:
    values = machine.since_mark()
    machine.push({})
    machine.set_items(values)


def _add_items(machine: _Machine, argument: Any) -> None:
    values, target = machine.since_mark(), machine.top()
    if not isinstance(target, set):
        raise ValueError("values are added to something else than a set")
    target.update(values)


def _push_argument(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.push(value)


def _setitem(machine: _Machine, argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append(machine: _Machine, argument: Any) -> None:
    machine.append([machine.pop()])


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    **{name: _constant(value) for name, value in _CONSTANTS.items()},
    **dict.fromkeys(_VALUES, _push_argument),
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, a: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.push(m.memo[int(a)])),
    "MARK": lambda m, a: m.push(_MARK),
    "POP": lambda m, a: m.stack.pop(),
    "POP_MARK": lambda m, a: m.since_mark(),
    "DUP": lambda m, a: m.push(m.top()),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_SET": lambda m, a: m.push(set()),
    "LIST": lambda m, a: m.push(m.since_mark()),
    "DICT": _dict,
    "TUPLE": lambda m, a: m.push(tuple(m.since_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "FROZENSET": lambda m, a: m.push(frozenset(m.since_mark())),
    "ADDITEMS": _add_items,
    "APPEND": _append,
    "APPENDS": lambda m, a: m.append(m.since_mark()),
    "SETITEM": _setitem,
    "SETITEMS": lambda m, a: m.set_items(m.since_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _new,
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.push(m.persistent()),
}


def _refused(where: str, reason: str) -> WeightsError:
    return WeightsError(f"{where}: refused: {reason}")

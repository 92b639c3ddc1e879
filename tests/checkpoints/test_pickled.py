"""Pickles that want to do something: none may, and every one is refused by name. A canary file tells whether anything ran."""

from __future__ import annotations

import contextlib
import io
import itertools
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chashka.checkpoints.pickled import Inert, Name, load
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.errors import WeightsError
from serving_process import tell

# what scanners of other projects let through, and the plain ones
CALLS = [
    "os system", "posix system", "subprocess Popen", "subprocess check_output", "builtins eval", "builtins exec",
    "__builtin__ eval", "builtins getattr", "builtins __import__", "builtins open", "builtins compile", "builtins map",
    "importlib import_module", "marshal loads", "pickle loads", "_pickle loads", "torch load", "torch.hub load",
    "torch.jit load", "torch.utils.cpp_extension load", "torch.serialization load", "torch._utils _rebuild_sparse_tensor",
    "torch._tensor _rebuild_from_type_v2", "torch._utils _rebuild_wrapper_subclass", "torch.storage _load_from_bytes",
    "pip main", "pip._internal main", "runpy run_path", "runpy _run_code", "code InteractiveInterpreter", "timeit timeit",
    "cProfile run", "profile run", "pdb run", "bdb Bdb", "trace Trace", "doctest debug_script", "idlelib.run Executive",
    "asyncio.unix_events _UnixSubprocessTransport.start", "ctypes CDLL", "socket create_connection", "webbrowser open",
    "urllib.request urlopen", "requests.api get", "shutil rmtree", "pathlib PosixPath", "pathlib PosixPath.write_bytes",
    "operator attrgetter", "operator methodcaller", "functools partial", "functools reduce", "types FunctionType",
    "types CodeType", "copyreg _reconstructor", "copy_reg _reconstructor", "numpy.testing._private.utils runstring",
    "numpy.f2py.crackfortran getlincoef", "numpy load", "numpy fromfile", "sympy.core.sympify sympify", "dill.source run",
    "cloudpickle.cloudpickle _make_function", "joblib load", "multiprocessing.util spawnv_passfds", "pty spawn",
    "distutils.spawn spawn", "tensorflow.io write_file", "pandas eval", "ast literal_eval", "sys modules", "logging.config listen",
    "collections Counter", "pytorch_lightning.callbacks EarlyStopping", "torch nn.Module", "torch.FloatStorage from_file",
    "torch.nn.modules.container Sequential", "torch.nn.modules.container ParameterDict.update", "torch.nn ParameterDict",
    "torch.nn.modules.container ModuleDict", "__builtin__ set.add", "__builtin__ getattr", "builtins set",
]  # fmt: skip


CONTAINER = b"ctorch.nn.modules.container\nParameterDict\n"
PARAMETERS = b"X\x0b\x00\x00\x00_parameters"


def by_global(module: str, name: str, argument: bytes) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + argument + b"tR."


def by_stack_global(module: str, name: str, argument: bytes) -> bytes:
    return b"\x80\x04" + short(module) + short(name) + b"\x93(" + argument + b"tR."


def by_new_object(module: str, name: str, argument: bytes) -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + argument + b"t\x81."


def by_instance(module: str, name: str, argument: bytes) -> bytes:
    return b"(" + argument + b"i" + f"{module}\n{name}\n".encode() + b"."


def behind_the_memo(module: str, name: str, argument: bytes) -> bytes:
    """The module's name is written, stored, taken away and brought back."""
    return b"\x80\x04" + short(module) + b"\x94" + b"0" + b"h\x00" + short(name) + b"\x93(" + argument + b"tR."


WAYS: list[Callable[[str, str, bytes], bytes]] = [
    by_global,
    by_stack_global,
    by_new_object,
    by_instance,
    behind_the_memo,
]


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def archive(pickled: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("model/data.pkl", pickled)
    return stream.getvalue()


def row(pickled: bytes) -> bytes:
    """The layout before torch 1.6."""
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(part, 2) for part in parts) + pickled + pickle.dumps([], 2)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something in a file was run"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("call", CALLS)
def test_no_name_outside_the_list_is_taken(tmp_path: Path, canary: Path, call: str, way: Callable[..., bytes]) -> None:
    for path in hostile(tmp_path, canary, call, way):
        with pytest.raises(WeightsError):
            read_checkpoint(path)


def hostile(folder: Path, canary: Path, call: str, way: Callable[..., bytes]) -> list[Path]:
    """Files in the three layouts that touch the canary by a function, which is named in one of the ways."""
    module, name = call.split(" ")
    pickled = way(module, name, short(f"touch {canary}"))
    paths = [folder / f"{i}.safetensors" for i in range(3)]  # the name says nothing
    for path, content in zip(paths, (archive(pickled), row(pickled), pickled), strict=True):
        path.write_bytes(content)
    return paths


@pytest.mark.promise
def test_p16_no_file_runs_anything(tmp_path: Path, canary: Path) -> None:
    """The same, counted."""
    files = ran = taken = 0
    for call, way in itertools.product(CALLS, WAYS):
        for path in hostile(tmp_path, canary, call, way):
            files += 1
            with contextlib.suppress(WeightsError):
                read_checkpoint(path)
                taken += 1
            ran += canary.exists()
            canary.unlink(missing_ok=True)
    tell("P16 hostile_files", files, ">= 120", files >= 120)
    tell("P16 code_run", ran, 0, ran == 0)
    tell("P16 hostile_files_accepted", taken, 0, taken == 0)


def test_the_message_names_what_was_refused(tmp_path: Path, canary: Path) -> None:
    class Gadget:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (canary,)

    path = tmp_path / "model.ckpt"
    path.write_bytes(archive(pickle.dumps({"state_dict": Gadget()}, 2)))
    with pytest.raises(WeightsError, match=r"model.ckpt: refused: it names .*, which has no place among weights"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"]q\x00K\x01K\x02s.",  # an item set in a list (heap corruption in torch before 2.10)
        b"}q\x00K\x01a.",  # a value appended to a dict
        b"(K\x01K\x02t}b.",  # state given to a tuple
        b"K\x01(tR.",  # a number called
        b"ccollections\nOrderedDict\n}R.",  # arguments that are no tuple
        b"\x80\x02\x82\x01.",  # the extension registry
        b"Pid\n.",  # a persistent object by text
        b"K\x01Q.",  # a persistent object that is a number
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\xff\xff\xff\xfftQ.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00(t(tK\x00NtR.",  # a tensor of a number
        b"ctorch._utils\n_rebuild_parameter\n(NNNtR.",
        b"ctorch\nSize\n((J\xff\xff\xff\xffttR.",
        b"(((((.",
        b"0.",
        b"h\x05.",
        b"K\x01",
        b"",
        b"\x80\x05\x97.",  # a buffer from outside
        CONTAINER + b"K\x01\x85\x81.",  # parameters made of a number, in both ways
        CONTAINER + b"K\x01\x85R.",
        CONTAINER + b")\x81K\x01K\x02s.",  # an item set in them
        CONTAINER + b")\x81K\x01b.",  # a state that is a number, that has no parameters, or others than tensors
        CONTAINER + b")\x81}b.",
        CONTAINER + b")\x81}" + PARAMETERS + b"Nsb.",
        CONTAINER + b")\x81}" + PARAMETERS + b"}X\x01\x00\x00\x00*K\x01ssb.",
        CONTAINER + b")\x81}" + PARAMETERS + b"}X\x01\x00\x00\x00*" + CONTAINER + b")\x81ssb.",
        CONTAINER + b")\x81N}" + PARAMETERS + b"}s\x86b.",  # a state of two halves
    ],
)
def test_what_is_malformed_is_refused(pickled: bytes) -> None:
    with pytest.raises(WeightsError, match=r"^x: "):
        load(io.BytesIO(pickled), "x")


def test_containers_numbers_and_texts_come_back() -> None:
    value = {
        "a": [1, -2, 3.5, True, None, 2**70],
        "b": ("x", "кот" * 100, b"\x00\xff" * 300),
        "c": {1, 2},
        "d": frozenset([3]),
        "e": {},
        5: (),
        "f": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    }
    for protocol in (4, 5):
        assert load(io.BytesIO(pickle.dumps(value, protocol)), "x") == value
    # older protocols write sets and bytes by names: those of bytes no checkpoint needs, sets are dead
    plain = {key: part for key, part in value.items() if key not in ("b", "c", "d")}
    for protocol in range(4):
        assert load(io.BytesIO(pickle.dumps(plain, protocol)), "x") == plain


def test_old_training_checkpoints_have_dead_objects() -> None:
    pickled = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\nq\x00."
    found = load(io.BytesIO(pickled), "x")
    assert found == Name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    dead = load(io.BytesIO(b"cnumpy.core.multiarray\nscalar\n(K\x01tR}b."), "x")
    assert isinstance(dead, Inert) and dead.state == {}


def test_a_set_of_the_second_protocol_is_a_dead_object() -> None:
    found = load(io.BytesIO(pickle.dumps({"a": {1}, "b": 2}, 2)), "x")
    assert isinstance(found["a"], Inert) and found["b"] == 2


def test_shared_lists_do_not_explode(tmp_path: Path) -> None:
    value: list[object] = []
    for _ in range(60):
        value = [value] * 10
    path = tmp_path / "laughs.pt"
    path.write_bytes(archive(pickle.dumps({"state_dict": {"a": value}}, 2)))
    with pytest.raises(WeightsError):
        read_checkpoint(path)


def test_nested_zips_and_two_pickles_are_no_checkpoint(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a/data.pkl", b"N.")
        file.writestr("b/data.pkl", b"N.")
    for name, content in (
        ("two", stream.getvalue()),
        ("inside", archive(archive(b"N."))),
        ("empty", b""),
        ("text", b"hello there"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(WeightsError):
            read_checkpoint(path)
    with pytest.raises(WeightsError, match="does not exist"):
        read_checkpoint(tmp_path / "nothing")


def test_numbers_do_not_lie_outside_their_block(tmp_path: Path) -> None:
    """A tensor of a billion numbers over a block of four; a block that is larger in the pickle than in the file."""

    def pickled(numel: int, offset: int, size: int, stride: int) -> bytes:
        number = lambda n: b"J" + struct.pack("<i", n)  # noqa: E731
        storage = (
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
            + number(numel)
            + b"tQ"
        )
        body = b"(" + storage + number(offset) + b"(" + number(size) + b"t(" + number(stride) + b"t\x89NtR"
        return b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n" + body + b"s."

    for numel, offset, size, stride in [(4, 0, 10**9, 0), (4, 3, 2, 1), (4, 0, 2, 4), (8, 0, 8, 1), (4, 5, 1, 1)]:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("model/data.pkl", pickled(numel, offset, size, stride))
            file.writestr("model/data/0", struct.pack("<4f", 1, 2, 3, 4))
        path = tmp_path / "w.pt"
        path.write_bytes(stream.getvalue())
        with pytest.raises(WeightsError):
            read_checkpoint(path)

"""The hub's side is a local stub: what is asked for, what is taken, what is refused."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from chashka.checkpoints import write
from chashka.errors import FileError, InputError, WeightsError
from chashka.hub import chosen, fetch

pytestmark = pytest.mark.extra
COMMIT = "a" * 40
DIFFUSERS = [
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "safety_checker/model.safetensors",
    "v1-5.ckpt",
    "v1-5.safetensors",
]


class Stub(BaseHTTPRequestHandler):
    """One repository of the hub, ``owner/name``, with the files of ``contents``; ``said``: sums that are not true."""

    contents: ClassVar[dict[str, bytes]] = {}
    said: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/name"):
            body = json.dumps(self.listing()).encode()
            self._answer(200, body, {"Content-Type": "application/json"})
        elif path.startswith("/owner/name/resolve/"):
            name = path.split("/", 5)[5]
            self.asked.append(name)
            digest = hashlib.sha256(self.contents[name]).hexdigest()
            self._answer(200, self.contents[name], {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def listing(self) -> dict[str, Any]:
        files = []
        for name, content in self.contents.items():
            digest = self.said.get(name, hashlib.sha256(content).hexdigest())
            lfs = {"sha256": digest, "size": len(content), "pointerSize": 130}
            files.append({"rfilename": name, "size": len(content), "blobId": "b" * 40, "lfs": lfs})
        return {
            "id": "owner/name",
            "modelId": "owner/name",
            "sha": COMMIT,
            "siblings": files,
            "private": False,
            "tags": [],
        }

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    write(tmp_path / "w.safetensors", {"model.diffusion_model.a": np.zeros(4, np.float32)}, {})
    weights = (tmp_path / "w.safetensors").read_bytes()
    Stub.contents = {name: weights if name.endswith(".safetensors") else b"{}" for name in DIFFUSERS}
    Stub.said, Stub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    huggingface_hub.close_session()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_folder_of_diffusers_comes_with_what_is_needed(hub: str, tmp_path: Path) -> None:
    fetched = fetch("hf:owner/name@main", tmp_path / "in", endpoint=hub)
    assert fetched.source == f"hf:owner/name@{COMMIT}" and fetched.place == tmp_path / "in"
    files = {
        str(p.relative_to(fetched.place)) for p in fetched.place.rglob("*") if p.is_file() and ".cache" not in p.parts
    }
    assert files == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert not any(name.endswith((".bin", ".ckpt")) for name in Stub.asked)


def test_one_file(hub: str, tmp_path: Path) -> None:
    fetched = fetch("hf:owner/name@main", tmp_path / "in", file="v1-5.safetensors", endpoint=hub)
    assert fetched.place == tmp_path / "in" / "v1-5.safetensors"
    assert fetched.place.read_bytes() == Stub.contents["v1-5.safetensors"]
    assert set(Stub.asked) == {"v1-5.safetensors"}


def test_added_by_the_command(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from chashka.cli.models import models

    monkeypatch.setenv("HF_ENDPOINT", hub)
    words = ["add", "hf:owner/name@main", "--file", "v1-5.safetensors", "--models", str(tmp_path / "models")]
    result = CliRunner().invoke(models, words)
    digest = hashlib.sha256(Stub.contents["v1-5.safetensors"]).hexdigest()
    assert result.exit_code == 0, result.output
    assert "name: model" in result.output and f"{digest}  v1-5.safetensors" in result.output
    manifest = json.loads((tmp_path / "models" / "name" / "chashka.json").read_text())
    assert manifest["source"] == f"hf:owner/name@{COMMIT}"
    assert not list((tmp_path / "models").glob(".incoming*"))
    listed = CliRunner().invoke(models, ["list", "--models", str(tmp_path / "models")])
    assert "\nname  ready  " in listed.output
    gone = CliRunner().invoke(models, ["remove", "name", "--models", str(tmp_path / "models")])
    assert gone.exit_code == 0 and "set free" in gone.output


def test_a_wrong_sum_is_not_kept(hub: str, tmp_path: Path) -> None:
    Stub.said = {"v1-5.safetensors": "0" * 64}
    with pytest.raises(WeightsError, match="the hub says 000000000000"):
        fetch("hf:owner/name@main", tmp_path / "in", file="v1-5.safetensors", endpoint=hub)


def test_what_the_hub_does_not_have(hub: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such repository or revision"):
        fetch("hf:owner/other@main", tmp_path / "in", endpoint=hub)
    with pytest.raises(FileError, match="the download failed"):
        fetch("hf:owner/name@main", tmp_path / "in", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize("address", ["hf:owner/name", "hf:name@main", "owner/name@main", "hf:../x@main", "hf:a/b@c d"])
def test_addresses(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no address; allowed: hf:OWNER/NAME@REVISION|Repo id must"):
        fetch(address, tmp_path)


@pytest.mark.parametrize(
    ("files", "file", "variant", "found"),
    [
        (DIFFUSERS, None, "fp16", "variant: vae has vae/diffusion_pytorch_model.safetensors"),
        (DIFFUSERS, "v1-5.ckpt", None, "'v1-5.ckpt' is not in hf:a; allowed: unet/"),
        (
            ["a.safetensors", "b.safetensors"],
            None,
            None,
            r"several: give one with --file \(a.safetensors, b.safetensors\)",
        ),
        (["a.ckpt", "README.md"], None, None, "no safetensors; other files may hold anything"),
        (["model_index.json", "unet/a.bin"], None, None, "no safetensors; other files may hold anything"),
    ],
)
def test_choices(files: list[str], file: str | None, variant: str | None, found: str) -> None:
    with pytest.raises(InputError, match=found):
        chosen(files, file, variant, "hf:a")


def parts(stem: str, count: int, variant: str = "") -> list[str]:
    """The index of a component's weights and its files."""
    more = f".{variant}" if variant else ""
    names = [f"{stem}{more}-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    return [f"{stem}.safetensors.index{more}.json", *names]


UNET, TEXT = "unet/diffusion_pytorch_model", "text_encoder/model"
SEVERAL = [
    "model_index.json",
    "unet/config.json",
    *parts(UNET, 2),
    *parts(UNET, 3, "fp16"),
    "unet/diffusion_pytorch_model.bin.index.json",
    "unet/diffusion_pytorch_model-00001-of-00001.bin",
    *parts(TEXT, 2),
    "text_encoder/model.fp16.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    *parts("vae/diffusion_pytorch_model", 2),
]
"""Weights in several files, their indices among the small ones."""


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        (None, [*parts(TEXT, 2), *parts(UNET, 2), *parts("vae/diffusion_pytorch_model", 2)]),
        ("fp16", ["text_encoder/model.fp16.safetensors", *parts(UNET, 3, "fp16"), "vae/diffusion_pytorch_model.fp16.safetensors"]),
    ],
)  # fmt: skip
def test_weights_in_several_files_come_with_their_own_index_alone(variant: str | None, weights: list[str]) -> None:
    assert chosen(SEVERAL, None, variant, "hf:a") == ["model_index.json", "unet/config.json", *weights]
    assert chosen(list(reversed(SEVERAL)), None, variant, "hf:a")[2:] == weights


def test_a_single_file_and_what_is_the_only_one_there() -> None:
    single = [f"{UNET}.safetensors", *parts(UNET, 2)]
    assert chosen(["model_index.json", *single], None, None, "hf:a")[1:] == [f"{UNET}.safetensors"]
    assert chosen(["model_index.json", *parts(UNET, 2, "fp16")], None, None, "hf:a")[1:] == parts(UNET, 2, "fp16")
    former = [f"{UNET}.safetensors.fp16.index.json", f"{UNET}-00001-of-00001.fp16.safetensors"]
    assert chosen(["model_index.json", *former], None, "fp16", "hf:a")[1:] == former


@pytest.mark.parametrize(
    ("files", "variant", "message"),
    [
        (parts(UNET, 3)[:3], None, r"unet: its weights are in 3 files; found are .*00001-of-00003.*; missing: number 3$"),
        (parts(UNET, 2)[1:], None, r"unet: its weights are in 2 files; found are .*; missing: their index$"),
        ([*parts(UNET, 2), *parts(UNET, 3)], None, r"unet: its weights are in 2 files; found are .*; allowed: each number once$"),
        (parts(UNET, 2), "fp16", r"variant: unet has .*-00002-of-00002\.safetensors; allowed: the part before"),
        ([*parts(UNET, 2, "fp16"), f"{UNET}.non_ema.safetensors"], None, r"variant: unet has .*; allowed: the part before"),
    ],
)  # fmt: skip
def test_parts_that_are_not_complete_are_not_downloaded(files: list[str], variant: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen(["model_index.json", *files], None, variant, "hf:a")


def test_parts_are_downloaded(hub: str, tmp_path: Path) -> None:
    weights = Stub.contents["v1-5.safetensors"]
    Stub.contents = {name: weights if name.endswith(".safetensors") else b"{}" for name in SEVERAL}
    fetched = fetch("hf:owner/name@main", tmp_path / "in", variant="fp16", endpoint=hub)
    files = {
        p.relative_to(fetched.place).as_posix()
        for p in fetched.place.rglob("*")
        if p.is_file() and ".cache" not in p.parts
    }
    assert files == set(chosen(SEVERAL, None, "fp16", "hf:a")) == set(Stub.asked)

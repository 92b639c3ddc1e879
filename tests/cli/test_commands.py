"""Every other command, and what all of them share."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import chashka
import chashka.errors
from chashka import families
from chashka.cli import EXIT_CODES, doctor, main
from chashka.cli.opening import owning
from chashka.engines.components import PRECISIONS
from chashka.errors import ChashkaError, WeightsError
from chashka.families.kandinsky import FAMILY, TEACUP
from toy_model import toy_bundle

Call = Callable[..., Any]


def test_help_lists_commands_and_exit_codes(call: Call) -> None:
    result = call("--help")
    assert result.code == 0
    for command in ("draw", "upscale", "models", "doctor", "data", "train", "export", "evaluate"):
        assert re.search(rf"^  {command} ", result.out, re.MULTILINE)
    errors = [e for e in vars(chashka.errors).values() if isinstance(e, type) and issubclass(e, ChashkaError)]
    for code in {0, 130, *(e.exit_code for e in errors)}:
        assert re.search(rf"^ +{code}  \S", result.out, re.MULTILINE)
        assert re.search(rf"^ +{code}  \S", EXIT_CODES, re.MULTILINE)


def test_version_is_the_package_s(call: Call, project: Path) -> None:
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert declared == chashka.__version__
    assert call("--version").out == f"chashka {declared}\n"


def test_without_arguments_there_is_help_and_no_traceback(call: Call) -> None:
    for words in ([], ["draw"], ["data"], ["evaluate"]):
        result = call(*words)
        assert result.code in (0, 2) and "Usage:" in result.out + result.err


def test_an_unknown_command_is_one_line(call: Call) -> None:
    result = call("paint")
    assert result.code == 2 and "paint" in result.error and "--help" in result.error


def test_errors_go_through_when_called_from_python() -> None:
    with pytest.raises(ChashkaError):
        main.main(["draw", "кот", "--steps", "0"], standalone_mode=False)


def test_a_closed_pipe_is_silent() -> None:
    code = "from chashka.cli import main; main()"
    words = f"{sys.executable} -c '{code}' models show | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60)
    assert result.stderr == ""
    assert result.stdout.strip() in ("0", "1")


# --- models -------------------------------------------------------------------------------------------------------------


def test_models_lists_by_itself(call: Call) -> None:
    assert call("models").out == call("models", "list").out
    rows = json.loads(call("models", "list", "--json").out)
    embedded, published = [row for row in rows if row["folder"]], [row for row in rows if not row["folder"]]
    assert [row["name"] for row in embedded] == ["kandinsky-teacup", "stable_diffusion-teacup"] and rows[0] == embedded[
        0
    ]
    assert all(row["licence"] and row["missing"] == [] for row in embedded)
    assert [r["name"] for r in published][:2] == ["kandinsky-2.0", "kandinsky-2.0-inpainting"]
    assert all(r["missing"] for r in published) and "vae.ckpt" in published[0]["missing"]
    assert "kandinsky-2.0  not here (--models)" in call("models").out
    shown = call("models", "show", "kandinsky-2.0").out
    assert "folder: not found" in shown and "missing: text_encoder1/config.json" in shown
    assert "is not in the package" in call("models", "card", "kandinsky-2.0").error


def test_models_show_documents_every_field(call: Call) -> None:
    facts = json.loads(call("models", "show", "--json").out)
    assert [f["name"] for f in facts["fields"]] == list(FAMILY.options.model_fields)
    assert all(f["about"] and f["allowed"] for f in facts["fields"])
    shown = call("models", "show", "kandinsky-teacup").out
    assert "dynamic_threshold_v [99.5]: " in shown and "1 to 1000" in shown


def test_models_show_names_what_exists(call: Call) -> None:
    assert "use one of kandinsky-teacup" in call("models", "show", "dalle").error


def test_models_says_what_is_missing(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = replace(TEACUP, folder=tmp_path)
    monkeypatch.setattr(families, "models", lambda: iter([("kandinsky-teacup", FAMILY, empty)]))
    assert "12 files missing" in call("models").out


def test_models_show_names_every_weight_file(call: Call) -> None:
    facts = json.loads(call("models", "show", "--json").out)
    assert (
        {f["name"] for f in facts["files"]}
        == set(TEACUP.weights)
        == {p.name for p in TEACUP.folder.glob("*.safetensors")}
    )
    assert all(re.fullmatch("[0-9a-f]{64}", f["sha256"]) and f["precision"] in PRECISIONS for f in facts["files"])
    shown = call("models", "show").out
    assert all(f["sha256"] in shown for f in facts["files"])


def test_models_card_of_the_embedded_model(call: Call, tmp_path: Path) -> None:
    shown = call("models", "card").out
    assert shown.startswith("# kandinsky-teacup\n") and "### Drawings" in shown
    assert "not in the registry" not in shown and "no registry" not in shown
    assert call("models", "card", "--out", tmp_path / "card.md").code == 0
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == shown
    assert "cannot write" in call("models", "card", "--out", tmp_path / "no" / "card.md").error


def test_models_ledger_counts_the_package(call: Call) -> None:
    assert "`kandinsky/unet.safetensors`" in call("models", "ledger").out
    assert "does not exist" in call("models", "ledger", "--wheel", "no.whl").error


def test_models_register_writes_a_registry(call: Call, project: Path, tmp_path: Path) -> None:
    registry, recipes = tmp_path / "r.json", project / "docs/models/recipes"
    words = ("models", "register", "--registry", registry, "--recipes", recipes, "--root", project)
    count = len(list((project / "src/chashka/teacup/kandinsky").glob("*.safetensors")))
    assert call(*words).out.startswith(f"{count} files in ")
    files = {entry["component"]: entry for entry in json.loads(registry.read_text(encoding="utf-8"))["weights"]}
    assert files["unet"]["recipe"].startswith("docs/models/recipes/unet")


# --- doctor -------------------------------------------------------------------------------------------------------------


class Engine:
    name = "fake CPU f32"
    precision = "f32"

    def __init__(self, broken: str = "") -> None:
        self.broken = broken

    def open(self, folder: Path, name: str) -> None:
        if name == self.broken:
            raise WeightsError(f"{name}.safetensors is damaged")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the model's files, an engine that opens them, and the toy model to draw."""
    for name in TEACUP.files:
        (tmp_path / name).write_bytes(name.encode())
    preset = replace(TEACUP, folder=tmp_path)
    monkeypatch.setenv("CHASHKA_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(families, "models", lambda: iter([("kandinsky-teacup", FAMILY, preset)]))
    monkeypatch.setattr(families, "load", lambda **_: toy_bundle())
    monkeypatch.setattr("chashka.engines.open_engine", lambda *_, **__: Engine())
    return tmp_path


def test_doctor_finds_nothing(call: Call, patient: Path) -> None:
    result = call("doctor", "--json")
    assert result.code == 0 and result.err == ""
    report = json.loads(result.out)
    assert report["packages"]["numpy"] and report["system"]["chashka"] == chashka.__version__
    assert [f["ok"] for f in report["models"][0]["files"]] == [True] * 6
    assert re.fullmatch("[0-9a-f]{64}", report["models"][0]["files"][0]["sha256"])
    assert report["engine"]["name"] == "fake CPU f32" and report["drawing"]["ok"]
    assert "drawing: ok" in call("doctor").out


def test_doctor_reports_everything_and_fails(call: Call, patient: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (patient / "decoder.safetensors").unlink()
    monkeypatch.setattr("chashka.engines.open_engine", lambda *_, **__: Engine("unet"))
    result = call("doctor")
    assert result.code == 4
    assert "decoder.safetensors: FAILED" in result.out and "unet.safetensors: FAILED" in result.out
    assert "encoder.safetensors: ok" in result.out and "drawing: FAILED  not tried" in result.out
    assert len(result.err.splitlines()) == 1 and "decoder.safetensors" in result.err


def test_doctor_looks_at_what_was_kept(call: Call, patient: Path, tmp_path: Path) -> None:
    """Beside a server that owns the data; a file that is gone and a database that is damaged are found, and nothing is changed."""
    data = tmp_path / "data"
    assert "nothing kept yet" in call("doctor", "--data", data).out and not data.exists()
    picture = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    call("gallery", "import", picture, "--data", data)
    with owning(data, ""):
        assert "data: " in (found := call("doctor", "--data", data)).out and "ok, 2 files" in found.out
    blob = next((data / "blobs").glob("??/*"))
    kept = blob.read_bytes()
    blob.unlink()
    result = call("doctor", "--data", data)
    assert result.code == 5 and "1 of 2 files are missing" in result.out and "chashka restore" in result.err
    blob.write_bytes(kept)
    database = data / "chashka.sqlite3"
    whole = bytearray(database.read_bytes())
    whole[4096 + 8 : 4096 + 72] = bytes(64)  # a page of the tables
    database.write_bytes(whole)
    assert call("doctor", "--data", data).code == 5


def test_doctor_knows_packages_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[doctor.callback.__module__], "PACKAGES", ("numpy", "no-such-package"))
    found = sys.modules[doctor.callback.__module__]._packages()
    assert found["numpy"] and found["no-such-package"] is None


# --- training, data, export: thin, and honest about their extras ---------------------------------------------------------

BLOCKED = "import sys\nfor n in sys.argv.pop(1).split(','): sys.modules[n] = None\nfrom chashka.cli import main\nmain()"
NEEDING = [
    (["draw", "кот", "--svg"], "svg"),
    (["draw", "кот", "--out", "кот.svg"], "svg"),
    (["train", "clip", "--shards", "d", "--run", "r"], "train"),
    (["data", "build", "--out", "d"], "train"),
    (["data", "vocabulary", "--out", "v.tsv"], "train"),
    (["export", *(f"--{n}=x" for n in ("autoencoder", "clip", "t5", "unet", "latents", "out"))], "torch"),
]


@pytest.mark.parametrize(("words", "extra"), NEEDING, ids=lambda v: " ".join(v)[:20])
def test_a_missing_extra_is_named(words: list[str], extra: str, tmp_path: Path) -> None:
    blocked = "torch,vtracer,resvg_py,pymorphy3,tokenizers"
    command = [sys.executable, "-c", BLOCKED, blocked, *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert result.returncode == 3, result.stderr
    assert len(result.stderr.splitlines()) == 1 and f"pip install 'chashka[{extra}]'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_captions_need_shards(call: Call, tmp_path: Path) -> None:
    result = call("data", "captions", "--shards", tmp_path)
    assert result.code == 5 and "chashka data build" in result.error


@pytest.mark.parametrize("number", ["nan", "inf", "-1"])
@pytest.mark.parametrize(
    "words",
    [
        ("jobs", "wait", "job_1", "--timeout"),
        ("train", "unet", "--shards", "nowhere", "--run", "nowhere", "--minutes"),
        ("data", "scenes", "--shards", "nowhere", "--other-words"),
    ],
)
def test_numbers_are_numbers(call: Call, words: tuple[str, ...], number: str) -> None:
    result = call(*words, number)
    assert result.code == 2 and words[-1] in result.error, result.error

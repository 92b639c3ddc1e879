"""A1111's dialect: which model, autoencoder and layers are meant, by settings or by a picture's infotext."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from dialect_server import ROOT, drawn, models_folder, serving, warnings

from chashka.app.dialects import a1111_models
from chashka.app.settings import Settings
from chashka.collection import Kept


def test_autoencoders_are_those_of_the_folder(tmp_path: Path) -> None:
    models = models_folder(tmp_path / "models")
    (models / "vaes" / "soft").mkdir(parents=True)
    (models / "vaes" / "kl-f8.vae.pt").write_bytes(b"")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (models / "vaes" / "soft" / name).write_bytes(b"")
    with serving(tmp_path / "data", models=models) as served:
        assert [one["model_name"] for one in served.get(f"{ROOT}/sd-vae")] == ["kl-f8.vae.pt", "soft"]

        def used(**said: object) -> tuple[str | None, str]:
            model = said.pop("model", "sd")
            _, info = drawn(served, prompt="x", override_settings={"sd_model_checkpoint": model, **said})
            field = served.jobs()[-1].fields.get("vae")
            assert info["sd_vae_name"] == field
            return field, warnings(info)

        for said, field in (("kl-f8.vae.pt", "kl-f8.vae"), ("kl-f8.vae", "kl-f8.vae"), ("soft", "soft")):
            assert used(sd_vae=said) == (field, "painted by a test")
        for said in ("Automatic", "None", "", None):
            assert used(sd_vae=said) == (None, "painted by a test")
        for more in (
            {"sd_vae": "nowhere"},
            {"sd_vae": "../sd.safetensors"},
            {"sd_vae": "soft", "model": "kandinsky-teacup"},
        ):
            field, told = used(**more)
            assert field is None and "the model's own autoencoder was used" in told
        assert served.get(f"{ROOT}/options")["sd_vae"] == "Automatic"
        served.post(f"{ROOT}/options", sd_vae="soft")
        assert served.get(f"{ROOT}/options")["sd_vae"] == "soft"
        assert used()[0] == "soft" and used(sd_vae="None")[0] is None
        error = served.post(f"{ROOT}/options", 422, sd_vae="nowhere")
        assert "allowed: Automatic, None, kl-f8.vae.pt, soft" in error["errors"]


def test_the_model_of_infotext_is_taken_and_compared(tmp_path: Path) -> None:
    models = models_folder(tmp_path / "models")
    right = hashlib.sha256((models / "sd.safetensors").read_bytes()).hexdigest()[:10]
    with serving(tmp_path / "data", models=models) as served:
        for model, digits, used, told in (
            ("sd", right, "sd", ""),
            ("stable_diffusion-sd", right, "sd", ""),
            ("called otherwise", right.upper(), "sd", ""),
            ("sd", "", "sd", ""),
            (
                "sd",
                "0123456789",
                "sd",
                "Model: 'sd' has another content here than the picture was drawn with (0123456789)",
            ),
            ("gone", "0123456789", "kandinsky-teacup", "Model: 'gone' is not on this server; another one was used"),
            ("", "", "kandinsky-teacup", ""),
        ):
            line = f"a cup\nSteps: 2, Sampler: Euler, Seed: 7, Size: 64x64, Model hash: {digits or '?'}, Model: {model or '?'}"
            text = line if digits else line.replace("Model hash: ?, ", "").removesuffix(", Model: ?")
            _, info = drawn(served, infotext=text)
            assert served.jobs()[-1].fields["model"] == used, text
            assert told in warnings(info) and ("Model" in warnings(info)) == bool(told)
        drawn(served, infotext=text, override_settings={"sd_model_checkpoint": "kandinsky-teacup"})
        assert served.jobs()[-1].fields["model"] == "kandinsky-teacup"


def test_the_hash_may_be_that_of_any_file_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture is told the file that its U-Net comes from, which need not be the largest."""
    files = {"text/model.safetensors": "a" * 64, "unet/model.safetensors": "b" * 64}
    row = {"model_name": "m", "sha256": "a" * 64}
    monkeypatch.setattr(a1111_models, "models", lambda settings: [row])
    monkeypatch.setattr(a1111_models, "_added", lambda name, settings: Kept(name, "model", "", tmp_path, files))

    def meant(digits: str) -> tuple[str | None, list[str]]:
        return a1111_models.meant({"Model": "m", "Model hash": digits}, Settings(data=tmp_path))

    assert meant("a" * 10) == meant("b" * 10) == ("m", [])
    found, (told,) = meant("c" * 10)
    assert found == "m" and "another content" in told
    files["unet/model.safetensors.index.json"] = "d" * 64
    assert meant("c" * 10) == ("m", []), "a sum of sums, which nobody knows here"


def test_the_autoencoder_of_infotext_is_taken_and_compared(tmp_path: Path) -> None:
    models = models_folder(tmp_path / "models")
    (models / "vaes").mkdir()
    (models / "vaes" / "soft.pt").write_bytes(b"soft")
    right = hashlib.sha256(b"soft").hexdigest()[:10]
    with serving(tmp_path / "data", models=models) as served:
        for name, digits, field, told in (
            ("soft", right, "soft", ""),
            ("soft.pt", right.upper(), "soft", ""),
            (
                "soft",
                "0123456789",
                "soft",
                "VAE: 'soft' has another content here than the picture was drawn with (0123456789)",
            ),
            ("gone", right, None, "sd_vae: 'gone' is not on this server; the model's own autoencoder was used"),
        ):
            text = f"a cup\nSteps: 2, Sampler: Euler, Seed: 7, Size: 64x64, VAE hash: {digits}, VAE: {name}"
            settings = {"sd_model_checkpoint": "sd"}
            _, info = drawn(served, infotext=text, override_settings=settings)
            assert served.jobs()[-1].fields.get("vae") == field
            assert told in warnings(info) and ("vae" in warnings(info).lower()) == bool(told)
        drawn(served, infotext=text, override_settings=settings | {"sd_vae": "soft"})
        assert served.jobs()[-1].fields["vae"] == "soft"


def test_clip_skip_is_ours(tmp_path: Path) -> None:
    models = models_folder(tmp_path / "models")
    with serving(tmp_path / "data", models=models) as served:

        def used(model: str = "sd", **said: object) -> tuple[int | None, dict[str, object]]:
            settings = {"sd_model_checkpoint": model, **said.pop("settings", {})}  # type: ignore[dict-item]
            _, info = drawn(served, **{"prompt": "x", **said}, override_settings=settings)
            return served.jobs()[-1].fields.get("clip_skip"), info

        for value in (2, "2"):
            field, info = used(settings={"CLIP_stop_at_last_layers": value})
            assert field == info["clip_skip"] == 2 and warnings(info) == "painted by a test"
        assert ", Clip skip: 2," in info["infotexts"][0]
        assert used(infotext=info["infotexts"][0], prompt=None)[0] == 2
        assert used(infotext=info["infotexts"][0], settings={"CLIP_stop_at_last_layers": 3})[0] == 3
        for value in (1, None):
            field, info = used(settings={"CLIP_stop_at_last_layers": value})
            assert field is None and info["clip_skip"] == 1 and "Clip skip" not in info["infotexts"][0]
        field, info = used("kandinsky-teacup", settings={"CLIP_stop_at_last_layers": 2})
        assert field is None and "CLIP_stop_at_last_layers: this model's text encoders have no layers" in warnings(info)
        assert served.get(f"{ROOT}/options")["CLIP_stop_at_last_layers"] == 1
        served.post(f"{ROOT}/options", CLIP_stop_at_last_layers=2)
        assert served.get(f"{ROOT}/options")["CLIP_stop_at_last_layers"] == 2
        assert used()[0] == 2 and used(settings={"CLIP_stop_at_last_layers": 1})[0] is None
        served.post(f"{ROOT}/options", 422, CLIP_stop_at_last_layers=13)
        for wrong in (0, 13, "two", 1.5, True):
            said = {"sd_model_checkpoint": "sd", "CLIP_stop_at_last_layers": wrong}
            error = served.post(f"{ROOT}/txt2img", 422, prompt="x", override_settings=said)
            assert "CLIP_stop_at_last_layers" in error["errors"] and "from 1 to 12" in error["errors"]

"""A1111's dialect: its route table, seeds, masks, progress, and errors."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialect_server import RED, ROOT, Served, colour, drawn, png, serving, to_base64, warnings
from PIL import Image

import chashka

INFO_KEYS = {
    "prompt",
    "all_prompts",
    "negative_prompt",
    "all_negative_prompts",
    "seed",
    "all_seeds",
    "subseed",
    "all_subseeds",
    "subseed_strength",
    "width",
    "height",
    "sampler_name",
    "cfg_scale",
    "steps",
    "batch_size",
    "restore_faces",
    "face_restoration_model",
    "sd_model_name",
    "sd_model_hash",
    "sd_vae_name",
    "sd_vae_hash",
    "seed_resize_from_w",
    "seed_resize_from_h",
    "denoising_strength",
    "extra_generation_params",
    "index_of_first_image",
    "infotexts",
    "styles",
    "job_timestamp",
    "clip_skip",
    "is_using_inpainting_conditioning",
    "version",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("a1111")) as running:
        yield running


def half(white: str = "left", mode: str = "L") -> bytes:
    """A1111's mask: white on one half."""
    pixels = np.zeros((24, 40), np.uint8)
    pixels[:, slice(0, 20) if white == "left" else slice(20, 40)] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "PNG")
    return out.getvalue()


def test_info_is_a_string_with_every_key(served: Served) -> None:
    pictures, info = drawn(
        served, prompt="чашка", negative_prompt="текст", seed=7, steps=3, cfg_scale=4, width=64, height=96
    )
    assert set(info) >= INFO_KEYS
    wanted = {
        "prompt": "чашка",
        "negative_prompt": "текст",
        "seed": 7,
        "all_seeds": [7],
        "width": 64,
        "height": 96,
        "steps": 3,
    }
    assert {name: info[name] for name in wanted} == wanted
    assert info["index_of_first_image"] == 0 and info["cfg_scale"] == 4 and info["sd_model_name"] == "kandinsky-teacup"
    assert info["version"] == f"chashka {chashka.__version__}" and "painted by a test" in warnings(info)
    assert pictures[0].shape == (96, 64, 4)


def test_pictures_are_raw_base64_of_png_with_parameters(served: Served) -> None:
    answer = served.post(f"{ROOT}/txt2img", prompt="чашка с чаем", seed=7, steps=3)
    data = base64.b64decode(answer["images"][0], validate=True)
    assert data.startswith(b"\x89PNG")
    text = Image.open(io.BytesIO(data)).info["parameters"]
    assert text.startswith("чашка с чаем\n") and "Steps: 3" in text and "Seed: 7" in text
    assert json.loads(answer["info"])["infotexts"] == [text]


def test_picture_i_has_the_seed_plus_i_and_asking_for_it_gives_that_very_picture(served: Served) -> None:
    pictures, info = drawn(served, prompt="a cup", seed=40, batch_size=2, n_iter=2)
    assert info["all_seeds"] == [40, 41, 42, 43] and len(pictures) == 4
    for number, pixels in enumerate(pictures):
        assert tuple(pixels[-1, -1]) == colour(40 + number, 0)
    (alone,), _ = drawn(served, prompt="a cup", seed=42)
    assert (alone == pictures[2]).all()


def test_a_seed_of_minus_one_is_chosen_and_told(served: Served) -> None:
    _, first = drawn(served, prompt="a cup", seed=-1)
    _, second = drawn(served, prompt="a cup")
    assert first["seed"] != second["seed"] and min(first["seed"], second["seed"]) >= 0
    assert served.jobs()[-1].fields["seed"] == second["seed"]


def test_variations_keep_the_seed_and_count_the_subseed(served: Served) -> None:
    _, info = drawn(served, prompt="a cup", seed=5, subseed=90, subseed_strength=0.3, batch_size=2)
    assert info["all_seeds"] == [5, 5] and info["all_subseeds"] == [90, 91]
    jobs = served.jobs()[-2:]
    assert [(job.fields["seed"], job.fields["subseed"], job.fields["subseed_strength"]) for job in jobs] == [
        (5, 90, 0.3),
        (5, 91, 0.3),
    ]


@pytest.mark.parametrize(
    ("name", "scheduler", "sampler", "spacing"),
    [
        ("Euler a", None, "euler_a", None),
        ("euler A", "Automatic", "euler_a", None),
        ("DPM++ 2M", "Karras", "dpmpp_2m", "karras"),
        ("DPM++ 2M Karras", None, "dpmpp_2m", "karras"),
        ("DPM++ 2M SDE Exponential", "automatic", "dpmpp_2m_sde", "exponential"),
        ("DDIM", "exponential", "ddim", "exponential"),
        ("k_euler_a", None, "euler_a", None),
        ("UniPC", None, "unipc", None),
    ],
)
def test_samplers_and_schedulers_have_a1111s_names(
    served: Served, name: str, scheduler: str | None, sampler: str, spacing: str | None
) -> None:
    _, info = drawn(served, prompt="a cup", sampler_name=name, scheduler=scheduler)
    fields = served.jobs()[-1].fields
    assert fields["sampler"] == sampler and fields.get("spacing") == spacing
    assert info["sampler_name"] in [one["name"] for one in served.get(f"{ROOT}/samplers")]


def test_every_listed_sampler_can_be_asked_for(served: Served) -> None:
    from chashka.diffusion import SAMPLERS

    names = [one["name"] for one in served.get(f"{ROOT}/samplers")]
    assert len(names) == len(SAMPLERS)
    found = {drawn(served, prompt="a cup", sampler_name=name)[1]["sampler_name"] for name in names}
    assert found == set(names)


def test_a_sampler_that_is_not_there_is_400(served: Served) -> None:
    error = served.post(f"{ROOT}/txt2img", 400, prompt="a cup", sampler_name="LMS Karras")
    assert set(error) == {"error", "detail", "body", "errors"} and error["detail"] == "Sampler not found"
    assert "Euler a" in error["errors"]


def test_a_scheduler_that_is_not_there_is_automatic_and_a_warning(served: Served) -> None:
    for scheduler in ("KL Optimal", "SGM Uniform"):
        _, info = drawn(served, prompt="a cup", scheduler=scheduler)
        assert "scheduler" in warnings(info) and "spacing" not in served.jobs()[-1].fields


def test_white_is_drawn_anew(served: Served) -> None:
    """A1111's masks are as ours. The painter paints red what our mask marks."""
    said = {"prompt": "x", "init_images": [to_base64(png())], "mask_blur": 0}
    (pixels,), info = drawn(served, "img2img", **said, mask=to_base64(half()))
    assert (pixels[:, :20] == RED).all() and (pixels[:, 20:] == (0, 160, 0, 255)).all()
    (pixels,), _ = drawn(served, "img2img", **said, mask=to_base64(half()), inpainting_mask_invert=1)
    assert (pixels[:, 20:] == RED).all() and (pixels[:, :20] == (0, 160, 0, 255)).all()
    fields = served.jobs()[-1].fields
    assert fields["only_masked"] is True and fields["mask_padding"] == 0
    assert "compositeWithTrainedAlgorithmicMedia" in served.client.get(f"/v1/images/{info['ids'][0]}").content.decode(
        "latin-1"
    )


def test_what_is_opaque_in_a_mask_with_transparency_is_drawn_anew(served: Served) -> None:
    """As A1111 has it: what was drawn on a transparent layer, whatever its colour."""
    layer = np.zeros((24, 40, 4), np.uint8)
    layer[:, :20] = (0, 0, 0, 255)
    (pixels,), _ = drawn(
        served, "img2img", prompt="x", init_images=[to_base64(png())], mask=to_base64(png(layer)), mask_blur=0
    )
    assert (pixels[:, :20] == RED).all() and (pixels[:, 20:] == (0, 160, 0, 255)).all()


def test_mask_fields_become_ours(served: Served) -> None:
    said = {"prompt": "x", "init_images": [to_base64(png())], "mask": to_base64(half()), "denoising_strength": 0.6}
    _, info = drawn(served, "img2img", **said)
    assert served.jobs()[-1].fields["mask_blur"] == 4 and served.jobs()[-1].fields["strength"] == 0.6
    _, info = drawn(
        served, "img2img", **said, mask_blur_x=2, mask_blur_y=9, inpaint_full_res=False, inpaint_full_res_padding=16,
        inpainting_fill=2,
    )  # fmt: skip
    fields = served.jobs()[-1].fields
    assert fields["mask_blur"] == 9 and not fields["only_masked"] and "inpainting_fill" in warnings(info)
    drawn(served, "img2img", **said, inpaint_full_res_padding=16)
    assert served.jobs()[-1].fields["mask_padding"] == 16


def test_a_data_url_is_a_picture_and_an_address_is_not(served: Served) -> None:
    (pixels,), _ = drawn(served, "img2img", prompt="x", init_images=[f"data:image/png;base64,{to_base64(png())}"])
    assert (pixels == (0, 160, 0, 255)).all()
    for address in ("http://127.0.0.1:1/x.png", "HTTPS://example.org/x.png", " ftp://x/y"):
        error = served.post(f"{ROOT}/img2img", 422, prompt="x", init_images=[address])
        assert "not fetched" in error["detail"]


def test_several_given_pictures_are_drawn_each(served: Served) -> None:
    blue = np.zeros((24, 40, 4), np.uint8)
    blue[:] = (0, 0, 255, 255)
    pictures, info = drawn(served, "img2img", prompt="x", seed=3, init_images=[to_base64(png()), to_base64(png(blue))])
    assert [tuple(pixels[0, 0]) for pixels in pictures] == [(0, 160, 0, 255), (0, 0, 255, 255)]
    assert info["all_seeds"] == [3, 4]


def test_the_middle_is_cut_out_by_resize_mode_1(served: Served) -> None:
    wide = np.zeros((64, 192, 4), np.uint8)
    wide[:] = (9, 9, 9, 255)
    wide[:, 64:128] = (0, 0, 255, 255)
    said = {"prompt": "x", "init_images": [to_base64(png(wide))], "width": 64, "height": 64}
    (pixels,), _ = drawn(served, "img2img", **said, resize_mode=1)
    assert pixels.shape == (64, 64, 4) and (pixels == (0, 0, 255, 255)).all()


def test_a_missing_picture_is_404(served: Served) -> None:
    assert served.post(f"{ROOT}/img2img", 404, prompt="x")["detail"] == "Init image not found"


def test_the_second_pass_is_ours(served: Served) -> None:
    said = {"prompt": "x", "width": 64, "height": 64, "denoising_strength": 0.4}
    _, info = drawn(
        served, **said, enable_hr=True, hr_scale=1.5, hr_second_pass_steps=2, hr_prompt="y", hr_upscaler="Latent"
    )
    fields = served.jobs()[-1].fields
    assert (fields["hires_scale"], fields["hires_strength"], fields["hires_steps"]) == (1.5, 0.4, 2)
    assert "hr_prompt" in warnings(info) and "hr_upscaler" in warnings(info)
    drawn(served, **said, enable_hr=True, hr_resize_x=128)
    assert served.jobs()[-1].fields["hires_scale"] == 2
    drawn(served, **said)
    assert "hires_scale" not in served.jobs()[-1].fields


def test_what_has_no_effect_is_a_warning_and_no_error(served: Served) -> None:
    _, info = drawn(
        served,
        prompt="x",
        restore_faces=True,
        s_churn=3,
        distilled_cfg_scale=3.5,
        override_settings={"eta_noise_seed_delta": 31337, "CLIP_stop_at_last_layers": 2},
        alwayson_scripts={
            "ControlNet": {"args": [{"enabled": True, "model": "canny"}]},
            "ADetailer": {"args": [False]},
        },
        seed_resize_from_h=-1,
        firstphase_width=0,
        s_noise=1.0,
    )
    text = warnings(info)
    for name in ("restore_faces", "s_churn", "distilled_cfg_scale", "eta_noise_seed_delta", "CLIP_stop", "ControlNet"):
        assert name in text
    for name in ("ADetailer", "seed_resize", "firstphase", "s_noise"):
        assert name not in text


def test_nothing_is_a_warning_of_what_webuiapi_sends_by_itself(served: Served) -> None:
    _, info = drawn(served, prompt="x", tiling=False, eta=1.0, s_churn=0, s_tmax=0, s_tmin=0, s_noise=1, script_args=[])
    assert warnings(info) == "painted by a test"


def test_eta_goes_to_samplers_that_have_it(served: Served) -> None:
    drawn(served, prompt="x", sampler_name="DDIM", eta=0.5)
    assert served.jobs()[-1].fields["eta"] == 0.5
    drawn(served, prompt="x", sampler_name="Euler", eta=0.5)
    assert "eta" not in served.jobs()[-1].fields


def test_tiling_is_both_ways(served: Served) -> None:
    drawn(served, prompt="x", tiling=True)
    assert served.jobs()[-1].fields["tiling"] == "xy"


def test_a_script_is_422(served: Served) -> None:
    assert served.post(f"{ROOT}/txt2img", 422, prompt="x", script_name="X/Y/Z plot")["detail"] == "Script not found"


@pytest.mark.parametrize(
    "said", [{"steps": 0}, {"steps": "many"}, {"width": 7}, {"batch_size": 0}, {"seed": 1.5}, {"styles": "a"}]
)
def test_wrong_values_are_422_with_the_field(served: Served, said: dict[str, Any]) -> None:
    error = served.post(f"{ROOT}/txt2img", 422, prompt="x", **said)
    assert set(error) == {"error", "detail", "body", "errors"}
    assert error["detail"][0]["loc"] == ["body", *said] and isinstance(error["errors"], str)


def test_too_many_pictures_are_422(served: Served) -> None:
    before = len(served.jobs())
    assert "at most 16" in served.post(f"{ROOT}/txt2img", 422, prompt="x", batch_size=4, n_iter=5)["detail"]
    assert len(served.jobs()) == before


def test_never_a_grid_in_front(served: Served) -> None:
    pictures, info = drawn(served, prompt="x", seed=1, batch_size=2, width=64, height=64, return_grid=True)
    assert info["index_of_first_image"] == 0 and info["all_seeds"] == [1, 2]
    assert [pixels.shape for pixels in pictures[:2]] == [(64, 64, 4)] * 2 and pictures[2].shape[1] > 64
    assert len(drawn(served, prompt="x", batch_size=2)[0]) == 2


def test_pictures_need_not_be_sent(served: Served) -> None:
    pictures, info = drawn(served, prompt="x", send_images=False)
    assert pictures == [] and served.client.get(f"/v1/images/{info['ids'][0]}").status_code == 200


def test_parameters_are_an_echo_without_the_pictures(served: Served) -> None:
    image = to_base64(png())
    said = served.post(f"{ROOT}/img2img", prompt="x", init_images=[image], mask=to_base64(half()))["parameters"]
    assert said["prompt"] == "x" and said["init_images"] is None and said["mask"] is None
    said = served.post(f"{ROOT}/img2img", prompt="x", init_images=[image], include_init_images=True)["parameters"]
    assert said["init_images"] == [image]


def nested(levels: int) -> Any:
    value: Any = "x"
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("field", ["comments", "override_settings", "alwayson_scripts", "no_such_field"])
def test_fields_that_are_nested_very_deep_are_refused_before_anything_is_drawn(served: Served, field: str) -> None:
    before = len(served.jobs())
    for levels in (32, 950):  # and the body's own
        for path in ("txt2img", "img2img", "extra-single-image", "options"):
            body = f'{{"prompt": "x", "{field}": {"[" * levels + "]" * levels}}}'
            headers = {"Content-Type": "application/json"}
            answer = served.client.post(f"{ROOT}/{path}", content=body, headers=headers)
            assert answer.status_code == 400
            error = answer.json()
            assert set(error) == {"error", "detail", "body", "errors"}
            assert "nested more than 32 deep; allowed: at most 32 levels" in error["detail"]
    assert len(served.jobs()) == before
    said = {"a": nested(30)} if field in ("override_settings", "alwayson_scripts") else nested(31)
    echo = served.post(f"{ROOT}/txt2img", prompt="x", **{field: said})["parameters"]
    assert echo[field] == said


def test_infotext_is_read_and_the_requests_own_fields_win(served: Served) -> None:
    text = "чашка\nNegative prompt: текст\nSteps: 3, Sampler: Euler a, CFG scale: 5.5, Seed: 99, Size: 64x128, Model: other"
    _, info = drawn(served, infotext=text, steps=2)
    wanted = {
        "prompt": "чашка",
        "negative_prompt": "текст",
        "seed": 99,
        "steps": 2,
        "cfg_scale": 5.5,
        "width": 64,
        "height": 128,
    }
    assert {name: info[name] for name in wanted} == wanted and info["sampler_name"] == "Euler a"
    assert "Model" in warnings(info)


def test_our_own_infotext_draws_the_same_picture(served: Served) -> None:
    (first,), info = drawn(
        served, prompt="чашка, синяя", seed=1234, steps=2, cfg_scale=4, sampler_name="DPM++ 2M", scheduler="karras"
    )
    (again,), _ = drawn(served, infotext=info["infotexts"][0])
    assert (first == again).all() and served.jobs()[-1].fields["spacing"] == "karras"


def test_long_prompts_are_drawn_and_read_back(served: Served) -> None:
    long = "a red cat, on a table, " * 434
    (first,), info = drawn(served, prompt=long, negative_prompt=long[:9000], seed=5)
    (again,), _ = drawn(served, infotext=info["infotexts"][0])
    assert (first == again).all() and served.jobs()[-1].fields["prompt"] == long.strip()
    error = served.post(f"{ROOT}/txt2img", 422, prompt="x" * 10_001)
    assert "10000 characters" in error["errors"]


def test_infotext_of_a_picture_that_was_drawn_elsewhere_names_its_number(served: Served) -> None:
    """The native API and OpenAI's draw picture i of one seed; its infotext says so, and draws it again here."""
    from PIL import Image

    (_, second) = served.post("/v1/images/generations", prompt="a cup", n=2, seed=9, size="64x64")["data"]
    file = served.client.get(second["url"]).content
    drawn(served, infotext=Image.open(io.BytesIO(file)).info["parameters"])
    fields = served.jobs()[-1].fields
    assert (fields["seed"], fields["first"], fields["n"]) == (9, 1, 1)


def test_styles_are_those_of_the_file(tmp_path: Path) -> None:
    text = 'name,prompt,negative_prompt\nink,"{prompt}, ink drawing",photo\nblue,blue,\n"",nameless,\n'
    (tmp_path / "styles.csv").write_text(text, encoding="utf-8-sig")
    with serving(tmp_path) as served:
        assert [style["name"] for style in served.get(f"{ROOT}/prompt-styles")] == ["ink", "blue"]
        _, info = drawn(served, prompt="a cup", negative_prompt="text", styles=["ink", "blue", "none such"])
        assert info["prompt"] == "a cup, ink drawing, blue" and info["negative_prompt"] == "text, photo"
        assert "none such" in warnings(info) and info["styles"] == ["ink", "blue", "none such"]


def test_options_hold_the_model_and_the_format(served: Served) -> None:
    title = served.get(f"{ROOT}/sd-models")[0]["title"]
    assert served.get(f"{ROOT}/options")["sd_model_checkpoint"] == title and title.startswith("kandinsky-teacup [")
    assert served.post(f"{ROOT}/options", sd_model_checkpoint=title, samples_format="jpg", grid_format="png") is None
    try:
        images = served.post(f"{ROOT}/txt2img", prompt="x")["images"]
        assert base64.b64decode(images[0]).startswith(b"\xff\xd8")
        images = served.post(f"{ROOT}/txt2img", prompt="x", override_settings={"samples_format": "webp"})["images"]
        assert base64.b64decode(images[0]).startswith(b"RIFF")
    finally:
        served.post(f"{ROOT}/options", samples_format="png")
    assert served.post(f"{ROOT}/options", 404, sd_model_checkpoint="v1-5-pruned.ckpt")["error"] == "HTTPException"
    served.post(f"{ROOT}/options", 422, samples_format="bmp")


def test_a_model_is_named_by_title_name_or_hash(served: Served) -> None:
    model = served.get(f"{ROOT}/sd-models")[0]
    assert len(model["hash"]) == 10 and model["sha256"].startswith(model["hash"]) and "/" not in model["filename"]
    for said in (model["title"], model["model_name"], model["hash"], model["sha256"]):
        _, info = drawn(served, prompt="x", override_settings={"sd_model_checkpoint": said})
        assert info["sd_model_name"] == "kandinsky-teacup" and info["sd_model_hash"] == model["hash"]
    served.post(f"{ROOT}/txt2img", 404, prompt="x", override_settings={"sd_model_checkpoint": "../../etc/passwd"})

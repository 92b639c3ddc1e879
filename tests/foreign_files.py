"""Small picture files as other programs write them, made here in their formats."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

from PIL import Image, PngImagePlugin

PROMPT, NEGATIVE = "кот с чашкой, 1girl, (masterpiece:1.2)", "blurry, low quality"
A1111 = (
    f"{PROMPT}\nsecond line\nNegative prompt: {NEGATIVE}\n"
    "Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 512x768, Model hash: 0123456789, "
    'Model: "deliberate, v2", Lora hashes: "a: 1, b: 2", Version: v1.10.1'
)
COMFY_GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 2**64 - 2, "steps": 20, "cfg": 8, "sampler_name": "euler", "scheduler": "normal", "denoise": 1,
            "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 640, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["11", 0], "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": NEGATIVE, "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
    "10": {"class_type": "LoraLoader", "inputs": {"lora_name": "l", "model": ["4", 0], "clip": ["4", 1]}},
    "11": {"class_type": "PrimitiveString", "inputs": {"value": PROMPT}},
}  # fmt: skip
PLAIN_GRAPH: dict[str, Any] = {
    **COMFY_GRAPH, "6": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT, "clip": ["4", 1]}}
}  # fmt: skip
WORKFLOW = {
    "nodes": [],
    "links": [
        [number, int(value[0]), value[1], int(id), 0, name.upper()]
        for number, (id, name, value) in enumerate(
            (id, name, value)
            for id, node in PLAIN_GRAPH.items()
            for name, value in node["inputs"].items()
            if isinstance(value, list)
        )
    ],
}
FLUX_GRAPH: dict[str, Any] = {
    "1": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["2", 0],
            "guider": ["3", 0],
            "sampler": ["4", 0],
            "sigmas": ["5", 0],
            "latent_image": ["6", 0],
        },
    },
    "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 9}},
    "3": {"class_type": "BasicGuider", "inputs": {"model": ["7", 0], "conditioning": ["8", 0]}},
    "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "5": {"class_type": "BasicScheduler", "inputs": {"steps": 4, "model": ["7", 0]}},
    "6": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 32}},
    "7": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux.safetensors"}},
    "8": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT}},
}
INVOKE = {
    "positive_prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 7, "steps": 30, "scheduler": "euler_a", "cfg_scale": 6.5,
    "width": 512, "height": 512, "model": {"model_name": "sd", "base_model": "sd-1", "model_type": "main"}, "app_version": "3.7",
}  # fmt: skip
SD_METADATA = {
    "model": "stable diffusion", "model_weights": "sd-1.4", "model_hash": "ab", "app_id": "invoke-ai/InvokeAI",
    "image": {
        "prompt": [{"prompt": f"a cup [{NEGATIVE}]", "weight": 1.0}], "steps": 50, "cfg_scale": 7.5, "seed": 3,
        "sampler": "k_lms", "width": 512, "height": 512, "threshold": 0, "perlin": 0, "type": "txt2img",
    },
}  # fmt: skip
DREAM = f'"a cup [{NEGATIVE}]" -s 50 -S 3 -W 512 -H 256 -C 7.5 -A k_lms'
FOOOCUS = {
    "prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": "11", "steps": 30, "guidance_scale": 4.0, "resolution": "(1024, 768)",
    "base_model": "juggernaut", "base_model_hash": "cd", "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "sharpness": 2.0,
    "version": "Fooocus v2.5.5",
}  # fmt: skip
NOVELAI = {"uc": NEGATIVE, "steps": 28, "sampler": "k_euler", "seed": 5, "strength": 0.7, "noise": 0.2, "scale": 11.0}


def picture() -> Image.Image:
    return Image.new("RGB", (16, 8), (200, 90, 30))


def png(**texts: str) -> bytes:
    """A PNG with text chunks; Cyrillic ones become iTXt, as Pillow does it."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key.replace("__", "-"), text)
    out = io.BytesIO()
    picture().save(out, "PNG", pnginfo=info)
    return out.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG with one chunk more, before its pixels."""
    plain = png()
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return plain[:33] + chunk + plain[33:]


def with_exif(format: str, tags: dict[int, str | bytes], comment: bytes | None = None) -> bytes:
    """A JPEG, WebP or PNG with EXIF tags, and a UserComment."""
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    if comment is not None:
        exif.get_ifd(0x8769)[0x9286] = comment
    out = io.BytesIO()
    picture().save(out, format, exif=exif)
    return out.getvalue()


def a1111_comment(text: str, order: str = "be") -> bytes:
    return b"UNICODE\0" + text.encode(f"utf-16-{order}")


EVERY: dict[str, bytes] = {
    "AUTOMATIC1111 png": png(parameters=A1111),
    "AUTOMATIC1111 jpeg": with_exif("JPEG", {}, a1111_comment(A1111)),
    "AUTOMATIC1111 webp": with_exif("WEBP", {}, a1111_comment(A1111)),
    "AUTOMATIC1111 jpeg, other byte order": with_exif("JPEG", {}, a1111_comment(A1111, "le")),
    "ComfyUI png": png(prompt=json.dumps(COMFY_GRAPH), workflow='{"nodes": []}'),
    "ComfyUI plain": png(prompt=json.dumps(PLAIN_GRAPH), workflow=json.dumps(WORKFLOW)),
    "ComfyUI webp": with_exif("WEBP", {0x0110: "prompt:" + json.dumps(COMFY_GRAPH), 0x010F: "workflow:{}"}),
    "ComfyUI flux": png(prompt=json.dumps(FLUX_GRAPH)),
    "InvokeAI png": png(invokeai_metadata=json.dumps(INVOKE), invokeai_graph="{}"),
    "InvokeAI older": png(sd__metadata=json.dumps(SD_METADATA)),
    "InvokeAI oldest": png(Dream=DREAM),
    "Fooocus png": png(parameters=json.dumps(FOOOCUS), fooocus_scheme="fooocus"),
    "Fooocus a1111": png(parameters=A1111.replace("v1.10.1", "Fooocus v2.5.5"), fooocus_scheme="a1111"),
    "NovelAI png": png(
        Software="NovelAI",
        Source="Stable Diffusion 1D44365E",
        Description=PROMPT,
        Comment=json.dumps(NOVELAI),
        Title="x",
    ),
}
"""Files by program and format; every one has a prompt."""

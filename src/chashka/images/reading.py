"""Pictures and masks from files that may be anything: limits before decoding, three formats, one frame."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter, ImageOps, UnidentifiedImageError

from chashka.errors import FileError, InputError
from chashka.images.pixels import resize_plane

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 25_000_000
"""Larger pictures are refused before they are decoded."""


def read(path: str | Path | bytes) -> NDArray[np.uint8]:
    """The picture in ``path``, or a file's bytes, as uint8 (H, W, 4), straight alpha, in sRGB, upright; an animation's first frame.

    Reads PNG, JPEG and WebP of at most 25 megapixels. Raises FileError: not there, not readable, not such a picture.
    """
    image = _decoded(io.BytesIO(path), Path("the picture")) if isinstance(path, bytes) else _upright(Path(path))
    alpha = image.convert("RGBA").getchannel("A")
    colour = _to_srgb(image)
    colour.putalpha(alpha)
    return np.asarray(colour)


def read_mask(path: str | Path) -> NDArray[np.float32]:
    """A mask as float32 (H, W) in [0, 1]: 1 (white) = repaint.

    Black and transparent parts are kept. A mask that is black wherever it is not transparent means its alpha: what is
    drawn on it is repainted. Raises FileError as :func:`read`, and InputError for a mask that repaints nothing.
    """
    pixels = np.asarray(_upright(Path(path)).convert("RGBA"), dtype=np.float32) / np.float32(255)
    alpha = pixels[..., 3]
    mask = (pixels[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)) * alpha
    if mask.max() < 0.5 and alpha.min() < 0.5 <= alpha.max():
        mask = alpha
    if mask.max() < 1 / 255:
        raise InputError(f"mask {str(path)!r} is black all over; paint white what is to be drawn anew")
    return np.clip(mask, 0.0, 1.0)


def fit_mask(mask: NDArray[np.float32], width: int, height: int) -> tuple[NDArray[np.float32], str | None]:
    """The mask at the picture's size, float32 (height, width), and a note if it had another one."""
    if mask.shape == (height, width):
        return mask, None
    fitted = resize_plane(mask, width, height, Image.Resampling.BILINEAR)
    return fitted, f"the mask was {mask.shape[1]}x{mask.shape[0]} and was resized to the picture's {width}x{height}"


def blurred(mask: NDArray[np.float32], pixels: float) -> NDArray[np.float32]:
    """A mask with a soft edge: Gaussian, its standard deviation in pixels."""
    if not pixels:
        return mask
    levels = Image.fromarray(np.round(mask * 255).astype(np.uint8))
    soft = levels.filter(ImageFilter.GaussianBlur(pixels))
    return np.asarray(soft, np.float32) / np.float32(255)


def _upright(path: Path) -> Image.Image:
    """Open, check the limits, decode the first frame, apply the EXIF orientation, and bring 16 bits to 8."""
    try:
        with path.open("rb") as file:
            return _decoded(file, path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _decoded(file: BinaryIO, path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(file, formats=FORMATS)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _too_large(path, f"{width}x{height}")
            image.load()
            image = ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, "far more") from error
    except FileError:
        raise
    except UnidentifiedImageError as error:
        raise FileError(f"{str(path)!r} is no picture that can be read; allowed: PNG, JPEG, WebP") from error
    except Exception as error:  # broken files make Pillow raise nearly anything: SyntaxError, struct.error, …
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{str(path)!r} is damaged: {reason[:200]}") from error
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey; Pillow's own conversion would clip, not scale
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode.startswith("I") else max(float(values.max()), 1.0)
        return Image.fromarray(np.rint(np.clip(values / top, 0, 1) * 255).astype(np.uint8))
    return image


def _too_large(path: Path, size: str) -> FileError:
    return FileError(f"{str(path)!r} has {size} pixels; allowed: at most {MAX_PIXELS // 1_000_000} megapixels in all")


def _to_srgb(image: Image.Image) -> Image.Image:
    """RGB in sRGB; a colour profile that cannot be used is passed over, as browsers do."""
    profile = image.info.get("icc_profile")
    plain = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return plain.convert("RGB")

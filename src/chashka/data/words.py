"""Names and keywords of every emoji in all languages of CLDR, from its two annotation packages (Unicode-3.0 licence).

A concept is one emoji without skin tone: ``emoji:2615`` is ☕; code points are hexadecimal, joined by ``-``, without
U+FE0F. The annotations name punctuation and mathematical signs too; they stay in, since a list of concepts decides what
is used. Regional variants (``en-GB``, ``es-MX``) hold only what differs, so their names join the language; scripts stay
apart (``zh-Hant``, ``sr-Latn``), because they are read as other texts.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chashka.errors import FileError
from chashka.prompts import normalise

MAIN_LOCALES = ("ru", "en", "de", "fr", "mn", "fa", "es", "zh", "uk", "kk")
"""The languages that get most of the training and the composed captions."""

SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
_MISSING = re.compile(r"↑|^E\d+(\.\d+)?[-–]\d+$")  # "inherited" marks and the placeholders of untranslated entries
_SCRIPT = re.compile(r"[A-Z][a-z]{3}")
# Scripts that are their language's usual one; CLDR keeps such regional files under the full name.
_USUAL = {"sr-Cyrl": "sr", "yue-Hant": "yue", "zh-Hans": "zh"}


def concept_id(emoji: str) -> str:
    """``emoji:`` and the code points of an emoji in hexadecimal, without variation selectors."""
    return "emoji:" + "-".join(f"{ord(character):x}" for character in emoji if character != "\ufe0f")


def emoji_of(concept: str) -> str:
    """The emoji of a concept id; the opposite of ``concept_id``."""
    return "".join(chr(int(code, 16)) for code in concept.removeprefix("emoji:").split("-"))


def base_locale(locale: str) -> str:
    """``en-GB`` → ``en``, ``zh-Hant-HK`` → ``zh-Hant``: the language, with its script when that is not usual."""
    parts = locale.split("-")
    kept = "-".join(parts[:1] + [part for part in parts[1:2] if _SCRIPT.fullmatch(part)])
    return _USUAL.get(kept, kept)


class Words:
    """``names[locale][concept]``: the short name first, keywords after it, spelt as CLDR spells them."""

    def __init__(self, names: dict[str, dict[str, list[str]]]) -> None:
        self._names = names
        self.locales = sorted(names)
        self.concepts = sorted({concept for entries in names.values() for concept in entries})

    @classmethod
    def read(cls, tarballs: Iterable[Path]) -> Words:
        """Read ``cldr-annotations-full`` and ``cldr-annotations-derived-full`` npm packages (``.tgz``), in that order.

        Raises FileError for a file that is missing or is no such package.
        """
        files: list[tuple[bool, str, dict[str, Any]]] = []
        for tarball in tarballs:
            found = [(("-" in locale), locale, entries) for locale, entries in _annotations(tarball)]
            if not found:
                raise FileError(f"{tarball}: no annotations inside; expected an npm package of CLDR annotations")
            files += found
        names: dict[str, dict[str, list[str]]] = {}
        # The plain language comes before its regions, so that its name stays the first one.
        for _, locale, entries in sorted(files, key=lambda file: file[:2]):
            _merge(names.setdefault(base_locale(locale), {}), entries)
        return cls({locale: entries for locale, entries in names.items() if entries})

    def names(self, concept: str) -> dict[str, list[str]]:
        """Locale → the short name, then keywords (regional short names first); empty for an unknown concept."""
        return {locale: self._names[locale][concept] for locale in self.locales if concept in self._names[locale]}

    def of_locale(self, locale: str) -> dict[str, list[str]]:
        """Concept → names of one language."""
        return self._names[locale]

    def entries(self, locale: str) -> list[str]:
        """Every different name and keyword of one language, normalised, sorted."""
        return sorted({normalise(text) for texts in self._names[locale].values() for text in texts} - {""})


def _annotations(tarball: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(locale, emoji → {"tts": […], "default": […]}) of every language of one package."""
    try:
        with tarfile.open(tarball) as package:
            for member in package:
                file = package.extractfile(member) if member.name.endswith("/annotations.json") else None
                if file is None:
                    continue
                (content,) = json.load(file).values()
                yield member.name.split("/")[-2], content.get("annotations", {})
    except (OSError, tarfile.TarError, ValueError, AttributeError) as error:
        raise FileError(f"{tarball}: cannot read the CLDR package ({error})") from error


def _merge(into: dict[str, list[str]], entries: dict[str, Any]) -> None:
    for emoji, entry in entries.items():
        if any(ord(character) in SKIN_TONES for character in emoji):
            continue
        known = into.get(concept_id(emoji), [])
        fresh = _clean([*entry.get("tts", ()), *known, *entry.get("default", ())])
        if known:  # the language's own name before the region's
            fresh = _clean([known[0], *fresh])
        if fresh and (known or entry.get("tts")):
            into[concept_id(emoji)] = fresh


def _clean(texts: Sequence[str]) -> list[str]:
    """Without placeholders and repetitions, order kept."""
    seen: dict[str, str] = {}
    for text in texts:
        if not _MISSING.search(text):
            seen.setdefault(normalise(text), text)
    seen.pop("", None)
    return list(seen.values())

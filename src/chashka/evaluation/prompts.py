"""The 48 fixed prompts, half of them not in English: the same words and the same seeds for every model, never picked.

Most ask for one thing, so that it can be counted whether it was drawn; some name a drawing style; six ask for what no
training picture shows. Prompt number i is drawn with seed i. The list is frozen: figures of two models can be compared only
if neither the words nor the order change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """``text`` as a speaker would type it, its ``language`` (BCP 47) and what it says in ``english``.

    ``concept``: the id of the one thing asked for, such as ``emoji:1f98a``; None where it is not one thing. ``topic``: what
    kind of thing; ``style``: the drawing style named in the text. ``seed``: the prompt's number, 0 to 47.
    """

    seed: int
    text: str
    language: str
    english: str
    topic: str
    concept: str | None = None
    style: str | None = None


# topic, language, text, English ("" if it is English), code points of the concept ("" if it is not one thing), style
_TABLE = (
    ("scene", "ru", "космос внутри чайной чашки", "space inside a teacup", "", ""),
    ("scene", "ru", "космосвнутричайнойчашки", "space inside a teacup (without spaces)", "", ""),
    ("food", "en", "3d: a red apple", "", "1f34e", "3d"),
    ("food", "ru", "красное яблоко", "red apple", "1f34e", ""),
    ("animal", "en", "a fox", "", "1f98a", ""),
    ("animal", "de", "ein Igel", "a hedgehog", "1f994", ""),
    ("animal", "en", "octopus", "", "1f419", ""),
    ("animal", "fr", "une tortue", "a turtle", "1f422", ""),
    ("animal", "en", "a penguin", "", "1f427", ""),
    ("animal", "es", "un gato negro", "a black cat", "1f408-200d-2b1b", ""),
    ("animal", "en", "owl", "", "1f989", ""),
    ("animal", "uk", "равлик", "snail", "1f40c", ""),
    ("animal", "mn", "морь", "horse", "1f40e", ""),
    ("animal", "zh", "熊猫", "panda", "1f43c", ""),
    ("animal", "pt", "borboleta", "butterfly", "1f98b", ""),
    ("animal", "nl", "een olifant", "an elephant", "1f418", ""),
    ("food", "en", "a pineapple", "", "1f34d", ""),
    ("food", "fa", "هندوانه", "watermelon", "1f349", ""),
    ("food", "en", "a slice of pizza", "", "1f355", ""),
    ("food", "ja", "おにぎり", "rice ball", "1f359", ""),
    ("food", "en", "carrot", "", "1f955", ""),
    ("food", "hi", "केला", "banana", "1f34c", ""),
    ("food", "ko", "딸기", "strawberry", "1f353", ""),
    ("vehicle", "en", "a rocket", "", "1f680", ""),
    ("vehicle", "kk", "ұшақ", "airplane", "2708", ""),
    ("vehicle", "en", "a bicycle", "", "1f6b2", ""),
    ("vehicle", "it", "una barca a vela", "a sailboat", "26f5", ""),
    ("vehicle", "en", "fire engine", "", "1f692", ""),
    ("plant", "en", "a cactus", "", "1f335", ""),
    ("plant", "sv", "en svamp", "a mushroom", "1f344", ""),
    ("plant", "en", "sunflower", "", "1f33b", ""),
    ("plant", "en", "a palm tree", "", "1f334", ""),
    ("object", "en", "an umbrella", "", "2602", ""),
    ("object", "tr", "uçurtma", "kite", "1fa81", ""),
    ("object", "en", "violin", "", "1f3bb", ""),
    ("object", "cs", "kytara", "guitar", "1f3b8", ""),
    ("object", "en", "scissors", "", "2702", ""),
    ("object", "en", "a teapot", "", "1fad6", ""),
    ("object", "en", "light bulb, line art", "", "1f4a1", "outlined"),
    ("building", "en", "a castle", "", "1f3f0", ""),
    ("building", "pl", "kościół", "church", "26ea", ""),
    ("building", "ar", "خيمة", "tent", "26fa", ""),
    ("sky", "en", "crescent moon", "", "1f319", ""),
    ("sky", "en", "a rainbow", "", "1f308", ""),
    ("scene", "en", "a cat inside a teacup", "", "", ""),
    ("scene", "de", "zwei rote Äpfel", "two red apples", "", ""),
    ("scene", "en", "three blue stars", "", "", ""),
    ("scene", "fr", "un chat dans une boîte", "a cat in a box", "", ""),
)

PROMPTS: tuple[Prompt, ...] = tuple(
    Prompt(seed, text, language, english or text, topic, f"emoji:{code}" if code else None, style or None)
    for seed, (topic, language, text, english, code, style) in enumerate(_TABLE)
)

SINGLE: tuple[Prompt, ...] = tuple(prompt for prompt in PROMPTS if prompt.concept is not None)
"""Those that ask for one thing: what recognition is counted over."""

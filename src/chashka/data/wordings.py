"""Other words for the relations of composed captions, so that a model knows more ways to ask than the grammar's own.

By language, for each relation in the order of ``composed_words.RELATIONS`` (inside, on, under, left of, right of, beside, behind,
above, wearing), then for two things that simply stand together. The forms of the second thing are those of ``RELATIONS``; besides
them {B} is the second as the first is said ({a}), {n} without its article, and {Ab}, {Aon}, {Aunder} are the first in the forms
{b}, {on}, {under}. What would say another layout is not here: «over» is above, «on top of» is on.
"""

from __future__ import annotations

import random
import re


def _rows(*rows: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row.split(" / ")) for row in rows)


WORDINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "en": _rows(
        "{a} in {b} / {B} with {a} inside / {a} within {b}",
        "{a} on top of {b} / {a} standing on {b} / {a} sitting on {b} / {B} with {a} on it / {B} with {a} on top",
        "{a} underneath {b} / {a} beneath {b} / {B} with {a} underneath",
        "{a} left of {b} / {a} on the left of {b} / {a} on the left and {B} on the right / on the left {a}, on the right {B}",
        "{a} right of {b} / {a} on the right of {b} / {a} on the right and {B} on the left / on the right {a}, on the left {B}",
        "{a} beside {b} / {a} near {b} / {a} by {b} / {a} close to {b} / {a} alongside {b}",
        "{B} in front of {a} / {a} at the back of {b}",
        "{a} over {b} / {B} below {a} / {a} higher than {b}",
        "{a} in {b} / {a} with {b} / {a} with {b} on / {a} who wears {b}",
        "{a} with {b} / {a} & {B} / {a} together with {b} / {a}, {B} / {a} plus {B}",
    ),
    "ru": _rows(
        "{a} в {on} / {B} с {Aunder} внутри / внутри {b} {a}",
        "{a} сверху на {on} / {a} поверх {b} / {B} с {Aunder} сверху / на {on} {a}",
        "{a} снизу под {under} / под {under} {a}",
        "{a} левее {b} / {a} слева, {B} справа / слева {a}, справа {B} / {a} по левую сторону от {b}",
        "{a} правее {b} / {a} справа, {B} слева / справа {a}, слева {B} / {a} по правую сторону от {b}",
        "{a} возле {b} / {a} недалеко от {b} / {a} около {b} / {a} у {b} / {a} вблизи {b}",
        "{a} позади {b} / {B} перед {Aunder}",
        "{a} выше {b} / {a} вверху над {under} / {B} ниже {Ab}",
        "{a} с {under} на голове",
        "{a} с {under} / {a}, {B} / {a} вместе с {under} / {a} плюс {B}",
    ),
    "uk": _rows(
        "{a} в {on} / {B} з {Aunder} всередині",
        "{a} зверху на {on} / {a} поверх {b} / на {on} {a}",
        "{a} знизу під {under} / під {under} {a}",
        "{a} зліва від {b} / {a} зліва, {B} справа / зліва {a}, справа {B}",
        "{a} справа від {b} / {a} справа, {B} зліва / справа {a}, зліва {B}",
        "{a} коло {b} / {a} поруч із {under} / {a} поблизу {b}",
        "{a} позаду {b} / {B} перед {Aunder}",
        "{a} вгорі над {under} / {B} нижче від {Ab}",
        "{a} із {under} на голові",
        "{a} разом із {under} / {a}, {B} / {a} і {B}",
    ),
    "de": _rows(
        "{B} mit {Ab} darin / {a} drinnen in {b} / {a} im Inneren von {b}",
        "{a} oben auf {b} / {B} mit {Ab} darauf / auf {b} {a}",
        "{a} unterhalb von {b} / {B} mit {Ab} darunter / unter {b} {a}",
        "{a} links neben {b} / links {a}, rechts {B} / {a} auf der linken Seite von {b} / {a} links und {B} rechts",
        "{a} rechts neben {b} / rechts {a}, links {B} / {a} auf der rechten Seite von {b} / {a} rechts und {B} links",
        "{a} bei {b} / {a} in der Nähe von {b} / {a} dicht neben {b}",
        "{B} vor {Ab}",
        "{a} oberhalb von {b} / {a} hoch über {b}",
        "{a} mit {b} auf dem Kopf",
        "{a} zusammen mit {b} / {a}, {B} / {a} sowie {B}",
    ),
    "fr": _rows(
        "{a} à l'intérieur d'{b} / {B} avec {a} dedans / {a} au fond d'{b}",
        "{B} avec {a} dessus / {a} au sommet d'{b} / sur {b}, {a}",
        "{a} en dessous d'{b} / {a} au-dessous d'{b} / sous {b}, {a}",
        "{a} sur la gauche d'{b} / à gauche {a}, à droite {B} / {a} à gauche et {B} à droite",
        "{a} sur la droite d'{b} / à droite {a}, à gauche {B} / {a} à droite et {B} à gauche",
        "{a} près d'{b} / {a} auprès d'{b} / {a} tout contre {b}",
        "{B} devant {a}",
        "{a} par-dessus {b} / au-dessus d'{b}, {a}",
        "{a} portant {b} / {a} qui porte {b} / {a} avec {b} sur la tête",
        "{a} avec {b} / {a}, {B} / {a} ainsi qu'{b}",
    ),
    "es": _rows(
        "{a} en {b} / {B} con {a} dentro / {a} en el interior de {b}",
        "{B} con {a} encima / {a} en lo alto de {b} / sobre {b}, {a}",
        "{a} bajo {b} / {a} por debajo de {b} / bajo {b}, {a}",
        "a la izquierda {a}, a la derecha {B} / {a} a la izquierda y {B} a la derecha / {a} en el lado izquierdo de {b}",
        "a la derecha {a}, a la izquierda {B} / {a} a la derecha y {B} a la izquierda / {a} en el lado derecho de {b}",
        "{a} junto a {b} / {a} cerca de {b}",
        "{a} tras {b} / {B} delante de {a}",
        "{a} por encima de {b} / {a} en alto, sobre {b}",
        "{a} que lleva {b} / {a} llevando {b} / {a} con {b} en la cabeza",
        "{a} con {b} / {a}, {B} / {a} junto con {b}",
    ),
    "fa": _rows(
        "{a} درون {b} / {a} توی {b} / {a} در {b}",
        "{a} بر روی {b} / روی {b} {a}",
        "{a} در زیر {b} / زیر {b} {a}",
        "{a} در سمت چپ {b} / {a} طرف چپ {b} / سمت چپ {a}، سمت راست {B}",
        "{a} در سمت راست {b} / {a} طرف راست {b} / سمت راست {a}، سمت چپ {B}",
        "{a} در کنار {b} / {a} نزدیک {b} / {a} پهلوی {b}",
        "{a} در پشت {b} / {B} جلوی {a}",
        "{a} در بالای {b} / {a} بالاتر از {b}",
        "{a} با {b} بر سر",
        "{a} همراه {b} / {a}، {B}",
    ),
    "zh": _rows(
        "{a}在{b}里面 / {b}中的{a} / {b}里面有{a}",
        "{a}在{b}上面 / {b}上面的{a} / {b}上有{a}",
        "{a}在{b}下面 / {b}下面的{a} / {b}下面有{a}",
        "{b}左边的{a} / 左边是{a}，右边是{B} / {a}在{b}的左侧",
        "{b}右边的{a} / 右边是{a}，左边是{B} / {a}在{b}的右侧",
        "{b}旁边的{a} / {b}附近的{a} / {a}挨着{b}",
        "{a}在{b}后面 / {B}在{a}前面",
        "{a}在{b}上方 / {a}高于{b}",
        "{a}戴着{b} / 戴{b}的{a}",
        "{a}与{B} / {a}、{B} / {a}跟{B}",
    ),
    "kk": _rows(
        "{a} {b} ішінде / {b} ішінде тұрған {a}",
        "{a} {b} үстінде / {b} үстінде тұрған {a}",
        "{a} {b} астында / {b} астында тұрған {a}",
        "{a} {b} сол жағында / сол жақта {a}, оң жақта {B}",
        "{a} {b} оң жағында / оң жақта {a}, сол жақта {B}",
        "{a} {b} жанында / {b} қасындағы {a}",
        "{a} {b} артында / {b} артында тұрған {a}",
        "{a} {b} жоғарысында",
        "басында {B} бар {a}",
        "{a} мен {B} / {a}, {B}",
    ),
    "mn": _rows(
        "{a} {b} дотор / {b} дотор байгаа {a}",
        "{a} {b} дээр / {b} дээр байгаа {a}",
        "{a} {b} доор / {b} доор байгаа {a}",
        "{a} {b} зүүн талд / зүүн талд {a}, баруун талд {B}",
        "{a} {b} баруун талд / баруун талд {a}, зүүн талд {B}",
        "{a} {b} хажууд / {b} дэргэдэх {a}",
        "{a} {b} ард / {b} цаана байгаа {a}",
        "{a} {b} дээгүүр",
        "толгой дээрээ {n} өмссөн {a}",
        "{a} болон {B} / {a}, {B}",
    ),
}
"""The last row, -1, is of two things without a relation."""


def articles(text: str, rng: random.Random) -> str:
    """An English caption as people type it: without its indefinite articles, or with definite ones."""
    return re.sub(r"\ban? (?=\w)", rng.choice(("", "the ")), text)

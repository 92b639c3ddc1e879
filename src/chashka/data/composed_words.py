"""The word tables of composed captions in the ten main languages: things, colours, sizes, numbers, relations, places.

Things are the rows of ``nouns.tsv``: the emoji that shows the thing, then one cell for each language, whose parts are
separated by ``|``. en: name, plural; ru: the name alone; de: name, gender, plural, dative where it differs; fr, es: name,
gender, plural; uk: gender, nominative, genitive, locative, instrumental, the form after two, the form after five; kk, mn:
name, the form that a relation asks for; fa: name; zh: name, measure word.
"""

from __future__ import annotations

from pathlib import Path

COLUMNS = ("emoji", "en", "ru", "de", "fr", "es", "uk", "kk", "mn", "fa", "zh")


def _read() -> tuple[tuple[str, ...], dict[str, tuple[tuple[str, ...], ...]]]:
    lines = (Path(__file__).parent / "nouns.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    return columns["emoji"], {
        locale: tuple(tuple(cell.split("|")) for cell in columns[locale]) for locale in COLUMNS[1:]
    }


EMOJI, NOUNS = _read()
"""The concept (hexadecimal code point; ``-`` for none) and, by language, the forms of every thing."""
SPACE = 11
"""The row of the thing that cannot be counted."""

# red, orange, yellow, green, blue, violet, pink, brown, black, white, grey
COLOURS: dict[str, tuple[str, ...]] = {
    locale: tuple(row.split(", "))
    for locale, row in {
        "en": "red, orange, yellow, green, blue, purple, pink, brown, black, white, grey",
        "ru": "красный, оранжевый, жёлтый, зелёный, синий, фиолетовый, розовый, коричневый, чёрный, белый, серый",
        "de": "rot, orangefarben, gelb, grün, blau, violett, rosa, braun, schwarz, weiß, grau",
        "fr": "rouge, orange, jaune, vert|verte, bleu|bleue, violet|violette, rose, marron, noir|noire, "
        "blanc|blanche, gris|grise",
        "es": "rojo|roja, naranja, amarillo|amarilla, verde, azul, morado|morada, rosa, marrón, negro|negra, "
        "blanco|blanca, gris",
        "fa": "قرمز, نارنجی, زرد, سبز, آبی, بنفش, صورتی, قهوه‌ای, سیاه, سفید, خاکستری",
        "zh": "红色的, 橙色的, 黄色的, 绿色的, 蓝色的, 紫色的, 粉色的, 棕色的, 黑色的, 白色的, 灰色的",
        "kk": "қызыл, қызғылт сары, сары, жасыл, көк, күлгін, қызғылт, қоңыр, қара, ақ, сұр",
        "mn": "улаан, улбар шар, шар, ногоон, цэнхэр, ягаан, нил ягаан, хүрэн, хар, цагаан, саарал",
        "uk": "червоний|червона|червоне, помаранчевий|помаранчева|помаранчеве, жовтий|жовта|жовте, "
        "зелений|зелена|зелене, синій|синя|синє, фіолетовий|фіолетова|фіолетове, "
        "рожевий|рожева|рожеве, коричневий|коричнева|коричневе, "
        "чорний|чорна|чорне, білий|біла|біле, сірий|сіра|сіре",
    }.items()
}

NUMBERS: dict[str, tuple[str, ...]] = {
    locale: tuple(row.split(", "))
    for locale, row in {
        "en": "one, two, three, four, five",
        "ru": "один, два, три, четыре, пять",
        "de": "eins, zwei, drei, vier, fünf",
        "fr": "un, deux, trois, quatre, cinq",
        "es": "uno, dos, tres, cuatro, cinco",
        "fa": "یک, دو, سه, چهار, پنج",
        "zh": "一个, 两, 三, 四, 五",
        "kk": "бір, екі, үш, төрт, бес",
        "mn": "нэг, хоёр, гурван, дөрвөн, таван",
        "uk": "один|одна|одне, два|дві|два, три, чотири, п'ять",
    }.items()
}

# big, small; fr, es: masculine and feminine; uk: masculine
SIZES: dict[str, tuple[str, str]] = {
    "en": ("big", "small"),
    "ru": ("большой", "маленький"),
    "de": ("groß", "klein"),
    "fr": ("grand|grande", "petit|petite"),
    "es": ("grande", "pequeño|pequeña"),
    "fa": ("بزرگ", "کوچک"),
    "zh": ("大的", "小的"),
    "kk": ("үлкен", "кішкентай"),
    "mn": ("том", "жижиг"),
    "uk": ("великий", "маленький"),
}

AND: dict[str, str] = {
    "en": " and ",
    "ru": " и ",
    "de": " und ",
    "fr": " et ",
    "es": " y ",
    "fa": " و ",
    "zh": "和",
    "kk": " және ",
    "mn": " ба ",
    "uk": " та ",
}

# on a plain ground of a colour ({c}), then in the sky, on grass, in the sea, at night, in the snow, in space, in a room
GROUNDS: dict[str, tuple[str, ...]] = {
    locale: tuple(row.split(" / "))
    for locale, row in {
        "en": "{x} on a {c} background / {x} in the sky / {x} on the grass / {x} in the sea / {x} at night"
        " / {x} in the snow / {x} in space / {x} in a room",
        "ru": "{x} на {c} фоне / {x} в небе / {x} на траве / {x} в море / {x} ночью / {x} на снегу / {x} в космосе"
        " / {x} в комнате",
        "de": "{x} auf {c} Hintergrund / {x} am Himmel / {x} auf der Wiese / {x} im Meer / {x} in der Nacht"
        " / {x} im Schnee / {x} im Weltraum / {x} im Zimmer",
        "fr": "{x} sur fond {c} / {x} dans le ciel / {x} sur l'herbe / {x} dans la mer / {x} la nuit"
        " / {x} dans la neige / {x} dans l'espace / {x} dans une chambre",
        "es": "{x} sobre fondo {c} / {x} en el cielo / {x} sobre la hierba / {x} en el mar / {x} de noche"
        " / {x} en la nieve / {x} en el espacio / {x} en una habitación",
        "fa": "{x} روی پس‌زمینه {c} / {x} در آسمان / {x} روی چمن / {x} در دریا / {x} در شب / {x} در برف / {x} در فضا"
        " / {x} در اتاق",
        "zh": "{c}背景上的{x} / 天空中的{x} / 草地上的{x} / 海里的{x} / 夜晚的{x} / 雪地里的{x} / 太空中的{x} / 房间里的{x}",
        "kk": "{c} фондағы {x} / аспандағы {x} / шөптегі {x} / теңіздегі {x} / түнгі {x} / қардағы {x} / ғарыштағы {x}"
        " / бөлмедегі {x}",
        "mn": "{c} дэвсгэр дээрх {x} / тэнгэр дэх {x} / зүлгэн дээрх {x} / далай дахь {x} / шөнийн {x}"
        " / цасан дээрх {x} / сансар дахь {x} / өрөөн дэх {x}",
        "uk": "{x} на {c} тлі / {x} у небі / {x} на траві / {x} у морі / {x} вночі / {x} на снігу / {x} у космосі"
        " / {x} у кімнаті",
    }.items()
}

# inside, on, under, left of, right of, beside, behind, above, wearing. {b}: the form that most relations of the language ask
# for; ru, uk: genitive, with {on} locative and {under} instrumental; {n}: the plain name
RELATIONS: dict[str, tuple[str, ...]] = {
    locale: tuple(row.split(" / "))
    for locale, row in {
        "en": "{a} inside {b} / {a} on {b} / {a} under {b} / {a} to the left of {b} / {a} to the right of {b}"
        " / {a} next to {b}"
        " / {a} behind {b} / {a} above {b} / {a} wearing {b}",
        "ru": "{a} внутри {b} / {a} на {on} / {a} под {under} / {a} слева от {b} / {a} справа от {b}"
        " / {a} рядом с {under}"
        " / {a} за {under} / {a} над {under} / {a} в {on}",
        "uk": "{a} всередині {b} / {a} на {on} / {a} під {under} / {a} ліворуч від {b} / {a} праворуч від {b}"
        " / {a} біля {b}"
        " / {a} за {under} / {a} над {under} / {a} у {on}",
        "de": "{a} in {b} / {a} auf {b} / {a} unter {b} / {a} links von {b} / {a} rechts von {b} / {a} neben {b}"
        " / {a} hinter {b} / {a} über {b} / {a} mit {b}",
        "fr": "{a} dans {b} / {a} sur {b} / {a} sous {b} / {a} à gauche d'{b} / {a} à droite d'{b} / {a} à côté d'{b}"
        " / {a} derrière {b} / {a} au-dessus d'{b} / {a} avec {b}",
        "es": "{a} dentro de {b} / {a} sobre {b} / {a} debajo de {b} / {a} a la izquierda de {b}"
        " / {a} a la derecha de {b} / {a} al lado de {b}"
        " / {a} detrás de {b} / {a} encima de {b} / {a} con {b}",
        "fa": "{a} داخل {b} / {a} روی {b} / {a} زیر {b} / {a} سمت چپ {b} / {a} سمت راست {b} / {a} کنار {b}"
        " / {a} پشت {b} / {a} بالای {b} / {a} با {b}",
        "zh": "{b}里的{a} / {b}上的{a} / {b}下的{a} / {a}在{b}左边 / {a}在{b}右边 / {a}在{b}旁边"
        " / {b}后面的{a} / {b}上方的{a} / 戴着{b}的{a}",
        "kk": "{b} ішіндегі {a} / {b} үстіндегі {a} / {b} астындағы {a} / {b} сол жағындағы {a} / {b} оң жағындағы {a}"
        " / {b} жанындағы {a}"
        " / {b} артындағы {a} / {b} жоғарысындағы {a} / {n} киген {a}",
        "mn": "{b} доторх {a} / {b} дээрх {a} / {b} доорх {a} / {b} зүүн талд байгаа {a} / {b} баруун талд байгаа {a}"
        " / {b} хажууд байгаа {a}"
        " / {b} ард байгаа {a} / {b} дээгүүр байгаа {a} / {n} өмссөн {a}",
    }.items()
}

"""The word tables of the composed captions: things, colours, numbers and relations in the ten main languages.

The i-th row of every language names the same thing. What a row holds depends on the language. en, fa, zh, kk, mn: the
name, the form that a relation asks for, the form after a number; de, fr, es: name, gender, plural; uk: gender,
nominative, genitive, locative, instrumental, the form after two, the form after five; ru: the name alone.
"""

from __future__ import annotations


def _rows(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(cell.strip() for cell in row.split("|")) for row in text.strip().split("\n"))


def _three(names: str, forms: str = "", counted: str = "") -> tuple[tuple[str, ...], ...]:
    first = names.split(", ")
    return tuple(
        zip(first, forms.split(", ") if forms else first, counted.split(", ") if counted else first, strict=True)
    )


PLACES = (0, 1, 2, 3, 9, 12, 16)
"""Rows of things that hold others: cup, box, house, tree, ball, boat, table."""

_EN = (
    "teacup, box, house, tree, cat, dog, car, star, moon, ball, apple, space, boat, fish, bird, heart, "
    "table, flower, hat, rocket, umbrella, book, bowl, window"
)

NOUNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "en": _three(
        _EN,
        counted="teacups, boxes, houses, trees, cats, dogs, cars, stars, moons, balls, apples, spaces, boats, fish, "
        "birds, hearts, tables, flowers, hats, rockets, umbrellas, books, bowls, windows",
    ),
    "ru": _three(
        "чайная чашка, коробка, дом, дерево, кошка, собака, машина, звезда, луна, мяч, яблоко, космос, лодка, рыба, "
        "птица, сердце, стол, цветок, шляпа, ракета, зонт, книга, миска, окно"
    ),
    "fa": _three(
        "فنجان, جعبه, خانه, درخت, گربه, سگ, ماشین, ستاره, ماه, توپ, سیب, فضا, قایق, ماهی, پرنده, قلب, "
        "میز, گل, کلاه, موشک, چتر, کتاب, کاسه, پنجره"
    ),
    "zh": _three(
        "茶杯, 盒子, 房子, 树, 猫, 狗, 汽车, 星星, 月亮, 球, 苹果, 太空, 船, 鱼, 鸟, 心, 桌子, 花, "
        "帽子, 火箭, 雨伞, 书, 碗, 窗户",
        counted="个茶杯, 个盒子, 座房子, 棵树, 只猫, 只狗, 辆汽车, 颗星星, 个月亮, 个球, 个苹果, 个太空, "
        "条船, 条鱼, 只鸟, 颗心, 张桌子, 朵花, 顶帽子, 枚火箭, 把雨伞, 本书, 个碗, 扇窗户",
    ),
    "kk": _three(
        "кесе, қорап, үй, ағаш, мысық, ит, көлік, жұлдыз, ай, доп, алма, ғарыш, қайық, балық, құс, жүрек, "
        "үстел, гүл, қалпақ, зымыран, қолшатыр, кітап, тостаған, терезе",
        "кесенің, қораптың, үйдің, ағаштың, мысықтың, иттің, көліктің, жұлдыздың, айдың, доптың, алманың, ғарыштың, "
        "қайықтың, балықтың, құстың, жүректің, үстелдің, гүлдің, қалпақтың, зымыранның, қолшатырдың, кітаптың, "
        "тостағанның, терезенің",
    ),
    "mn": _three(
        "аяга, хайрцаг, байшин, мод, муур, нохой, машин, од, сар, бөмбөг, алим, сансар, завь, загас, шувуу, зүрх, "
        "ширээ, цэцэг, малгай, пуужин, шүхэр, ном, таваг, цонх",
        "аяганы, хайрцагны, байшингийн, модны, муурын, нохойн, машины, одны, сарны, бөмбөгний, алимны, сансрын, "
        "завины, загасны, шувууны, зүрхний, ширээний, цэцгийн, малгайн, пуужингийн, шүхрийн, номын, тавагны, цонхны",
    ),
    "de": _rows(
        """Tasse|f|Tassen
        Schachtel|f|Schachteln
        Haus|n|Häuser
        Baum|m|Bäume
        Katze|f|Katzen
        Hund|m|Hunde
        Auto|n|Autos
        Stern|m|Sterne
        Mond|m|Monde
        Ball|m|Bälle
        Apfel|m|Äpfel
        Weltraum|m|Weltraumbilder
        Boot|n|Boote
        Fisch|m|Fische
        Vogel|m|Vögel
        Herz|n|Herzen
        Tisch|m|Tische
        Blume|f|Blumen
        Hut|m|Hüte
        Rakete|f|Raketen
        Regenschirm|m|Regenschirme
        Buch|n|Bücher
        Schüssel|f|Schüsseln
        Fenster|n|Fenster"""
    ),
    "fr": _rows(
        """tasse|f|tasses
        boîte|f|boîtes
        maison|f|maisons
        arbre|m|arbres
        chat|m|chats
        chien|m|chiens
        voiture|f|voitures
        étoile|f|étoiles
        lune|f|lunes
        ballon|m|ballons
        pomme|f|pommes
        cosmos|m|cosmos
        bateau|m|bateaux
        poisson|m|poissons
        oiseau|m|oiseaux
        cœur|m|cœurs
        table|f|tables
        fleur|f|fleurs
        chapeau|m|chapeaux
        fusée|f|fusées
        parapluie|m|parapluies
        livre|m|livres
        bol|m|bols
        fenêtre|f|fenêtres"""
    ),
    "es": _rows(
        """taza|f|tazas
        caja|f|cajas
        casa|f|casas
        árbol|m|árboles
        gato|m|gatos
        perro|m|perros
        coche|m|coches
        estrella|f|estrellas
        luna|f|lunas
        balón|m|balones
        manzana|f|manzanas
        cosmos|m|cosmos
        barco|m|barcos
        pez|m|peces
        pájaro|m|pájaros
        corazón|m|corazones
        mesa|f|mesas
        flor|f|flores
        sombrero|m|sombreros
        cohete|m|cohetes
        paraguas|m|paraguas
        libro|m|libros
        cuenco|m|cuencos
        ventana|f|ventanas"""
    ),
    "uk": _rows(
        """f|чашка|чашки|чашці|чашкою|чашки|чашок
        f|коробка|коробки|коробці|коробкою|коробки|коробок
        m|будинок|будинку|будинку|будинком|будинки|будинків
        n|дерево|дерева|дереві|деревом|дерева|дерев
        m|кіт|кота|коті|котом|коти|котів
        m|собака|собаки|собаці|собакою|собаки|собак
        f|машина|машини|машині|машиною|машини|машин
        f|зірка|зірки|зірці|зіркою|зірки|зірок
        m|місяць|місяця|місяці|місяцем|місяці|місяців
        m|м'яч|м'яча|м'ячі|м'ячем|м'ячі|м'ячів
        n|яблуко|яблука|яблуці|яблуком|яблука|яблук
        m|космос|космосу|космосі|космосом|космоси|космосів
        m|човен|човна|човні|човном|човни|човнів
        f|риба|риби|рибі|рибою|риби|риб
        m|птах|птаха|птахові|птахом|птахи|птахів
        n|серце|серця|серці|серцем|серця|сердець
        m|стіл|столу|столі|столом|столи|столів
        f|квітка|квітки|квітці|квіткою|квітки|квіток
        m|капелюх|капелюха|капелюсі|капелюхом|капелюхи|капелюхів
        f|ракета|ракети|ракеті|ракетою|ракети|ракет
        f|парасолька|парасольки|парасольці|парасолькою|парасольки|парасольок
        f|книга|книги|книзі|книгою|книги|книг
        f|миска|миски|мисці|мискою|миски|мисок
        n|вікно|вікна|вікні|вікном|вікна|вікон"""
    ),
}

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

# inside, on, under, left of, right of, beside ({b}: the form that most relations of the language ask for), and
RELATIONS: dict[str, tuple[str, ...]] = {
    locale: tuple(row.split(" / "))
    for locale, row in {
        "en": "{a} inside {b} / {a} on {b} / {a} under {b} / {a} to the left of {b} / {a} to the right of {b}"
        " / {a} next to {b}",
        "ru": "{a} внутри {b} / {a} на {on} / {a} под {under} / {a} слева от {b} / {a} справа от {b}"
        " / {a} рядом с {under}",
        "uk": "{a} всередині {b} / {a} на {on} / {a} під {under} / {a} ліворуч від {b} / {a} праворуч від {b}"
        " / {a} біля {b}",
        "de": "{a} in {b} / {a} auf {b} / {a} unter {b} / {a} links von {b} / {a} rechts von {b} / {a} neben {b}",
        "fr": "{a} dans {b} / {a} sur {b} / {a} sous {b} / {a} à gauche d'{b} / {a} à droite d'{b} / {a} à côté d'{b}",
        "es": "{a} dentro de {b} / {a} sobre {b} / {a} debajo de {b} / {a} a la izquierda de {b}"
        " / {a} a la derecha de {b} / {a} al lado de {b}",
        "fa": "{a} داخل {b} / {a} روی {b} / {a} زیر {b} / {a} سمت چپ {b} / {a} سمت راست {b} / {a} کنار {b}",
        "zh": "{b}里的{a} / {b}上的{a} / {b}下的{a} / {a}在{b}左边 / {a}在{b}右边 / {a}在{b}旁边",
        "kk": "{b} ішіндегі {a} / {b} үстіндегі {a} / {b} астындағы {a} / {b} сол жағындағы {a} / {b} оң жағындағы {a}"
        " / {b} жанындағы {a}",
        "mn": "{b} доторх {a} / {b} дээрх {a} / {b} доорх {a} / {b} зүүн талд байгаа {a} / {b} баруун талд байгаа {a}"
        " / {b} хажууд байгаа {a}",
    }.items()
}

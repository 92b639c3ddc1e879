"""Words for the drawing styles and the frames of plain captions, in the languages where they are sure to read well.

Names stand in their dictionary form: alone, after a colon or before a comma, so that no language has to inflect them.
Where a language leaves nouns as they are (English, Swedish, Chinese, …) a name may also stand inside a phrase.
"""

from __future__ import annotations

STYLES = ("flat", "3d", "outlined", "clipart", "blob", "gradient")
"""Drawing styles that captions can name; a style outside this table gets no styled captions."""

# locale → style → what people call it, the usual one first
STYLE_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    locale: dict(zip(STYLES, (tuple(cell.split("|")) for cell in row.split(" / ")), strict=True))
    for locale, row in {
        "en": "flat style|flat icon / 3d|3d render / outlined|line art / clip art|clipart / gumdrop style|blob style"
        " / gradient|with gradients",
        "ru": "плоский стиль|в плоском стиле / 3d|объёмный рисунок / контурный рисунок|с контуром / клипарт"
        " / мармеладный стиль|стиль капля / градиент|с градиентом",
        "de": "flacher Stil|flaches Symbol / 3D|3D-Bild / Umrisszeichnung|mit Umriss / Clipart / Tropfenstil|Blob-Stil"
        " / Farbverlauf|mit Farbverlauf",
        "fr": "style plat|icône plate / 3D|image en 3D / dessin au trait|avec contour / clipart|clip art"
        " / style goutte|style blob / dégradé|avec dégradé",
        "mn": "хавтгай хэв маяг|хавтгай зураг / 3d|гурван хэмжээст зураг / контур зураг|зураасан зураг / клипарт"
        " / дусал хэв маяг / градиент|өнгөний шилжилттэй",
        "fa": "سبک تخت|طرح تخت / سه‌بعدی|3d / طراحی خطی|خطی / کلیپ آرت / سبک قطره‌ای / گرادیان|شیب رنگ",
        "es": "estilo plano|icono plano / 3D|imagen en 3D / dibujo de línea|con contorno / clipart / estilo gota"
        "|estilo blob / degradado|con degradado",
        "zh": "扁平风格|扁平图标 / 3D|立体 / 线条画|描边 / 剪贴画 / 水滴风格|软糖风格 / 渐变|渐变风格",
        "uk": "плаский стиль|у пласкому стилі / 3d|об'ємний малюнок / контурний малюнок|з контуром / кліпарт"
        " / мармеладний стиль|стиль крапля / градієнт|з градієнтом",
        "kk": "жалпақ стиль|жазық сурет / 3d|үш өлшемді сурет / контурлы сурет|сызба сурет / клипарт / тамшы стилі"
        " / градиент|градиентпен",
        "it": "stile piatto|icona piatta / 3D|immagine 3D / disegno al tratto|con contorno / clipart / stile goccia"
        " / sfumatura|con sfumature",
        "pt": "estilo plano|ícone plano / 3D|imagem 3D / desenho de linha|com contorno / clipart / estilo gota"
        " / gradiente|com gradiente",
        "pl": "styl płaski|płaska ikona / 3D|obraz 3D / rysunek konturowy|z konturem / clipart / styl żelkowy"
        " / gradient|z gradientem",
        "tr": "düz stil|düz simge / 3D|üç boyutlu / çizgi çizim|konturlu / klipart / damla stili"
        " / gradyan|renk geçişli",
        "ja": "フラットデザイン|フラット / 3D|立体 / 線画|輪郭線 / クリップアート / しずく風|グミ風 / グラデーション",
        "ko": "플랫 스타일|플랫 아이콘 / 3D|입체 / 선화|윤곽선 / 클립아트 / 물방울 스타일|젤리 스타일 / 그라데이션",
        "ar": "أسلوب مسطح|رمز مسطح / ثلاثي الأبعاد|3D / رسم خطي|رسم محدد / كليب آرت / أسلوب القطرة"
        " / تدرج لوني|بتدرج لوني",
        "hi": "फ्लैट शैली|सपाट शैली / 3D|त्रिआयामी / रेखाचित्र|रूपरेखा / क्लिप आर्ट / बूंद शैली / ग्रेडिएंट",
        "nl": "vlakke stijl|plat icoon / 3D|3D-afbeelding / lijntekening|met omtrek / clipart / druppelstijl"
        " / kleurverloop|met kleurverloop",
        "cs": "plochý styl|plochá ikona / 3D|3D obrázek / obrysová kresba|s obrysem / klipart / kapkový styl"
        " / barevný přechod|s barevným přechodem",
        "sv": "platt stil|platt ikon / 3D|3D-bild / linjeteckning|med kontur / clipart / droppstil / toning|med toning",
        "vi": "phong cách phẳng|biểu tượng phẳng / 3D|hình 3D / tranh nét|có viền / clipart / kiểu giọt nước"
        " / chuyển màu|màu chuyển sắc",
        "id": "gaya datar|ikon datar / 3D|gambar 3D / gambar garis|dengan garis luar / clipart / gaya tetes"
        " / gradien|dengan gradien",
        "el": "επίπεδο στυλ|επίπεδο εικονίδιο / 3D|τρισδιάστατη εικόνα / γραμμικό σχέδιο|με περίγραμμα / clipart"
        " / στυλ σταγόνας / διαβάθμιση|με διαβάθμιση",
    }.items()
}

STYLED_FRAMES = ("{name}, {style}", "{style}: {name}")
"""Frames that hold in every language of the table."""

PLAIN_FRAMES: dict[str, tuple[str, ...]] = {
    "en": ("a picture of {name}", "a drawing of {name}", "picture: {name}"),
    "ru": ("рисунок: {name}", "картинка: {name}", "нарисуй: {name}"),
    "de": ("Bild: {name}", "Zeichnung: {name}"),
    "fr": ("image : {name}", "dessin : {name}"),
    "mn": ("зураг: {name}",),
    "fa": ("تصویر: {name}", "نقاشی: {name}"),
    "es": ("imagen: {name}", "dibujo: {name}"),
    "zh": ("{name}的图片", "一张{name}的图", "画：{name}"),
    "uk": ("малюнок: {name}", "зображення: {name}", "намалюй: {name}"),
    "kk": ("сурет: {name}",),
    "it": ("immagine: {name}", "disegno: {name}"),
    "pt": ("imagem: {name}", "desenho: {name}"),
    "pl": ("obrazek: {name}", "rysunek: {name}"),
    "tr": ("resim: {name}", "çizim: {name}"),
    "ja": ("{name}の絵", "{name}のイラスト"),
    "ko": ("{name} 그림", "그림: {name}"),
    "ar": ("صورة: {name}", "رسم: {name}"),
    "hi": ("चित्र: {name}",),
    "nl": ("een afbeelding van {name}", "tekening: {name}"),
    "cs": ("obrázek: {name}", "kresba: {name}"),
    "sv": ("en bild av {name}", "teckning: {name}"),
    "vi": ("hình ảnh {name}", "tranh vẽ {name}"),
    "id": ("gambar {name}", "gambar: {name}"),
    "el": ("εικόνα: {name}", "σχέδιο: {name}"),
}

ARTICLES: dict[str, tuple[str, ...]] = {
    locale: tuple(row.split(" / "))
    for locale, row in {
        "en": "a / an / the",
        "de": "ein / eine / der / die / das",
        "fr": "un / une / le / la",
        "es": "un / una / el / la",
        "it": "un / una / il / la",
        "pt": "um / uma / o / a",
        "ca": "un / una / el / la",
        "gl": "un / unha / o / a",
        "nl": "een / de / het",
        "sv": "en / ett",
        "da": "en / et",
        "no": "en / ei / et",
        "ro": "un / o",
        "hu": "egy / a / az",
        "el": "ένας / μία / ένα / ο / η / το",
        "sq": "një",
        "af": "'n / die",
        "fa": "یک",
        "tr": "bir",
        "kk": "бір",
        "mn": "нэг",
        "zh": "一个 / 一只 / 一张",
        "vi": "một / một cái / một con",
        "id": "sebuah / seekor",
    }.items()
}
"""What people put before a name. The word lists know no genders, so any of them may come: what is typed is not always right
either, and the picture is the same."""

"""Texts, conversations and sequences of ids for which implementations of a tokenizer are likely to differ."""

# ruff: noqa: RUF001 - letters that look like others are intended here

from __future__ import annotations

import random
from collections.abc import Sequence

Chat = list[dict[str, str]]

SCRIPTS = [
    "The quick brown fox doesn't jump over 37,512 lazy dogs; it's 3.5°C!",
    "Ein Bär läuft über die Straße, façade, naïve, señor, Łódź, Ångström",
    "Съешь же ещё этих мягких французских булок, да выпей чаю",
    "日本語のテキスト、ｶﾞﾗｽと全角ＡＢＣ。中文文本，繁體字與简体字",
    "한국어 텍스트와 자모 ㅎㅏㄴ ᄒ\u1161\u11ab",
    "نص عربي مع تَشْكِيل و٣٤ رقماً",
    "טקסט בעברית עִם נִקּוּד",
    "हिन्दी में लिखा हुआ पाठ, क्षत्रिय",
    "ข้อความภาษาไทยไม่มีช่องว่าง",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 ﷽ ﬁ Å é e\u0301 o\u0308\u0304",
    "👩‍👩‍👧‍👦 🦊🏽‍♂️ 🇩🇪🇯🇵 ❤️‍🔥 1️⃣ 🏴\U000e0067\U000e0062\U000e007f",
    "def f(x):\n    return {'a': [x ** 2 for x in range(10)]}  # 100%\n\n\tpass\r\n",
    '{"key": "va\\"lue", "n": -1.5e-7, "path": "C:\\\\x"}',
    "<div class='x'>&nbsp;</div> <!-- --> <|endoftext|> <unk> <0x41> [INST] </s>",
    "∑_{i=0}^{∞} αᵢ ≤ √2 · ∂f/∂x ⇒ ¬∃x∈ℝ",
    "\x00\x01\x1b[31mred\x7f\x85\u200b\u200e\u2028\ufeff\ufffd\ufffe",
    "word " * 20,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 4,
    "▁metaspace ▁▁ Ġbyte Ċ",
]
SPACES = [" ", "  ", "\n", "\n\n\n", "\t", "\r\n", " \n ", "\u00a0", "\u3000", "                 ", ""]


def texts(special: Sequence[str], count: int = 200, seed: int = 0) -> list[str]:
    """``special``: tokens of the tokenizer, whole and in parts, which a text may contain by chance."""
    draw = random.Random(seed)
    made = ["", *SPACES[:-1], *SCRIPTS, *(f"  {text}\n" for text in SCRIPTS)]
    while len(made) < count:
        parts = []
        for _ in range(draw.randint(1, 5)):
            text = draw.choice(SCRIPTS)
            begin = draw.randrange(len(text))
            parts += [text[begin : begin + draw.randint(1, 30)], draw.choice(SPACES)]
            if special and draw.random() < 0.3:
                token = draw.choice(special)
                parts += [draw.choice([token, token[:-1], token.upper(), f" {token} "])]
        made.append("".join(parts))
    return made[:count]


def chats(special: Sequence[str], count: int = 30, seed: int = 1) -> list[Chat]:
    """Conversations, most in the order that templates require, some that they may refuse."""
    draw = random.Random(seed)
    content = texts(special, 200, seed)
    made = []
    for index in range(count):
        roles = ["user", "assistant"] * draw.randint(0, 3) + ["user"]
        if index % 3 == 1:
            roles.insert(0, "system")
        if index % 10 == 9:
            draw.shuffle(roles)
        made.append([{"role": role, "content": draw.choice(content)} for role in roles])
    return made


def ids(size: int, likely: Sequence[int], count: int = 200, seed: int = 2) -> list[list[int]]:
    """What a model may draw: any of ``size`` ids, often ``likely`` ones (single bytes), in any order."""
    draw = random.Random(seed)
    return [
        [
            draw.choice(likely) if likely and draw.random() < 0.5 else draw.randrange(size)
            for _ in range(draw.randint(2, 60))
        ]
        for _ in range(count)
    ]

"""The corpus of the bundled model: tasks whose answers can be checked, and stories from templates.

Everything follows from a seeded `random.Random`. Pairs of numbers are split by a hash of the pair, in
either order, so that no held-out sum or difference is ever seen in training.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

WORDS = (
    "cat dog sun moon tree fish bird star lamp road ship rain snow leaf rock cake king frog wolf bear "
    "door hand book song milk gold ring wind salt sand"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November December").split()

HEROES = "fox bear owl cat dog frog mouse wolf rabbit hen".split()
NAMES = "Mira Tobi Lena Oskar Nilo Ada Finn Rosa".split()
TRAITS = "small brave quiet clever hungry sleepy merry old".split()
LANDSCAPES = "forest valley village meadow harbour mountain garden island".split()
THINGS = "lantern key bell map apple kite boat drum".split()
WEATHER = "rain wind snow fog sun".split()


@dataclass(frozen=True, slots=True)
class Example:
    """One question and its only right answer."""

    task: str
    question: str
    answer: str


def held_out(a: int, b: int) -> bool:
    """About one pair in eight, the same for (a, b) and (b, a)."""
    low, high = sorted((a, b))
    return hashlib.blake2b(f"{low},{high}".encode()).digest()[0] % 8 == 0


def _pair(draw: random.Random, want_held_out: bool) -> tuple[int, int]:
    while True:
        a, b = draw.randrange(100), draw.randrange(100)
        if held_out(a, b) == want_held_out:
            return a, b


def addition(draw: random.Random, *, from_held_out: bool = False) -> Example:
    a, b = _pair(draw, from_held_out)
    question = draw.choice([f"What is {a} + {b}?", f"{a} + {b} = ?", f"Add {a} and {b}."])
    return Example("sum", question, f"{a} + {b} = {a + b}")


def subtraction(draw: random.Random, *, from_held_out: bool = False) -> Example:
    b, a = sorted(_pair(draw, from_held_out))
    question = draw.choice([f"What is {a} - {b}?", f"{a} - {b} = ?", f"Take {b} from {a}."])
    return Example("difference", question, f"{a} - {b} = {a - b}")


def counting(draw: random.Random) -> Example:
    start = draw.randrange(100)
    question = draw.choice([f"Count on from {start}.", f"Which numbers come after {start}?"])
    return Example("count", question, ", ".join(str(start + i) for i in range(1, 9)))


def _word(draw: random.Random) -> str:
    if draw.random() < 0.3:
        return draw.choice(WORDS)
    return "".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(draw.randrange(3, 6)))


def reversing(draw: random.Random) -> Example:
    word = _word(draw)
    question = draw.choice([f"Reverse the word {word}.", f"Spell {word} backwards."])
    return Example("reverse", question, word[::-1])


def repeating(draw: random.Random) -> Example:
    word, times = _word(draw), draw.randrange(2, 6)
    return Example("repeat", f"Say {word} {times} times.", " ".join([word] * times))


def calendar(draw: random.Random) -> Example:
    names, kind = draw.choice([(DAYS, "day"), (MONTHS, "month")])
    index = draw.randrange(len(names))
    step, side = draw.choice([(1, "after"), (-1, "before")])
    question = f"Which {kind} comes {side} {names[index]}?"
    if draw.random() < 0.3:
        return Example("calendar", f"Name the {kind}s in order.", ", ".join(names))
    return Example("calendar", question, names[(index + step) % len(names)])


def story(draw: random.Random) -> Example:
    hero, name, trait = draw.choice(HEROES), draw.choice(NAMES), draw.choice(TRAITS)
    place, thing, weather = draw.choice(LANDSCAPES), draw.choice(THINGS), draw.choice(WEATHER)
    friend = draw.choice([animal for animal in HEROES if animal != hero])
    sentences = [
        f"Once there was a {trait} {hero} called {name} who lived in the {place}.",
        f"One day the {weather} came, and {name} found a {thing} under a tree.",
        draw.choice(
            [
                f"{name} did not know whose {thing} it was, so {name} asked the {friend}.",
                f"Along came a {friend} who had lost a {thing} and was very sad.",
            ]
        ),
        f'"This {thing} is mine," said the {friend}, "and I looked for it everywhere."',
        draw.choice(
            [
                f"{name} gave the {thing} back, and the {friend} danced for joy.",
                f"So they shared the {thing}, and nobody in the {place} was sad any more.",
            ]
        ),
        f"From that day on the {hero} and the {friend} were friends.",
    ]
    question = draw.choice(
        [f"Tell me a story about a {hero}.", f"Tell me a story about a {hero} and a {friend}."]
    )
    return Example("story", question, " ".join(sentences))


CHECKED: dict[str, Callable[[random.Random], Example]] = {
    "sum": lambda draw: addition(draw, from_held_out=True),
    "difference": lambda draw: subtraction(draw, from_held_out=True),
    "count": counting,
    "reverse": reversing,
    "repeat": repeating,
    "calendar": calendar,
}
"""Tasks with one right answer; sums and differences of held-out pairs only."""

_MIX: tuple[tuple[float, Callable[[random.Random], Example]], ...] = (
    (0.34, addition),
    (0.22, subtraction),
    (0.08, counting),
    (0.17, reversing),
    (0.06, repeating),
    (0.05, calendar),
    (0.08, story),
)


def training_examples(seed: int) -> Iterator[Example]:
    """An endless stream; no sum or difference in it is of a held-out pair."""
    draw = random.Random(seed)
    weights = [weight for weight, _ in _MIX]
    makers = [maker for _, maker in _MIX]
    while True:
        yield draw.choices(makers, weights)[0](draw)

"""A stand-in for a language model: local, free, and the same answer every time.

The examples call it from inside activities only. To use a real model, replace what such an activity does; the workflows
stay as they are.
"""

from __future__ import annotations

import re
from collections import Counter

_GOOD = {"amazing", "best", "excellent", "fantastic", "good", "great", "happy", "love", "perfect", "recommend"}
_BAD = {
    "angry",
    "awful",
    "bad",
    "broken",
    "disappointing",
    "hate",
    "late",
    "outage",
    "poor",
    "slow",
    "sorry",
    "terrible",
    "worst",
}
_NEGATIONS = {"not", "no", "never", "hardly", "isn't", "wasn't", "don't"}
_DUBIOUS = {"fraud": {"scam", "counterfeit"}, "violence": {"weapon", "bomb"}, "insult": {"idiot", "moron"}}
_KINDS = {
    "invoice": {"invoice", "payment", "due", "total"},
    "contract": {"agreement", "party", "parties", "hereby", "shall"},
    "report": {"quarter", "quarterly", "revenue", "growth", "analysis"},
}
_GREETINGS = {"de": "Auf Deutsch", "es": "En español", "fr": "En français"}


def words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return re.findall(r"[a-zäöüß']+", text.lower())


def write(prompt: str) -> str:
    """A text about what the prompt asks for."""
    topic = prompt.strip().rstrip(".!?")
    return f"{topic}. This text was asked for, and here it is. It says what there is to say: {topic.lower()}."


def sentiment(text: str) -> tuple[str, float]:
    """`positive`, `negative` or `neutral`, and how clearly so from -1 to 1. A negation turns the word after it."""
    score, found, negated = 0, 0, False
    for word in words(text):
        value = (word in _GOOD) - (word in _BAD)
        score += -value if negated else value
        found += abs(value)
        negated = word in _NEGATIONS
    clarity = score / found if found else 0.0
    return ("positive" if clarity > 0 else "negative" if clarity < 0 else "neutral"), clarity


def objections(text: str) -> list[str]:
    """The kinds of content because of which a text should not be published."""
    said = set(words(text))
    return sorted(kind for kind, signs in _DUBIOUS.items() if said & signs)


def keywords(text: str, most: int = 5) -> list[str]:
    """The longer words that come up most often."""
    counted = Counter(word for word in words(text) if len(word) > 4)
    return [word for word, _ in sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:most]]


def translate(text: str, language: str) -> str:
    """The text in another language, as far as this model speaks it. Raises KeyError when it does not."""
    return f"{_GREETINGS[language]}: {text}"


def summarise(text: str, sentences: int = 1) -> str:
    """The first sentences."""
    return " ".join(re.split(r"(?<=[.!?])\s+", text.strip())[:sentences])


def kind_of(text: str) -> str:
    """What kind of document this is: `invoice`, `contract`, `report` or `other`."""
    said = set(words(text))
    best = max(_KINDS, key=lambda kind: len(_KINDS[kind] & said))
    return best if _KINDS[best] & said else "other"


def entities(text: str) -> dict[str, list[str]]:
    """Amounts and dates that a text names."""
    return {
        "amounts": re.findall(r"[$€]\d[\d,]*(?:\.\d+)?", text),
        "dates": re.findall(r"\d{4}-\d{2}-\d{2}", text),
    }

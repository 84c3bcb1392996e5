"""What the description of a series says: its words, and what they mean together."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from string import ascii_lowercase
from typing import NamedTuple

from mrdiff_jax.scans.spellings import SPELLINGS
from mrdiff_jax.scans.vocabulary import AGENT_NAMES, ANCHORS, EMBEDDED, MEANINGS, PHRASES, Meaning


class Words(NamedTuple):
    """What a description says: its meanings; contrast agent as 'before', 'after', 'unclear' or ''; another kind of image.

    strange: the first word that is not known, which may mean anything.
    """

    meanings: frozenset[Meaning]
    agent: str = ""
    other_kind: str = ""
    strange: str = ""


_TRANSPARENT = {Meaning.FILLER, Meaning.WITH, Meaning.FREE, Meaning.EITHER, Meaning.DASH}  # a negation reaches over them
_OF_THEIR_OWN = {  # words that are read only where they stand alone
    Meaning.NEUTRAL,
    Meaning.PLACE,
    Meaning.OCCASION,
    Meaning.OPERATION,
    Meaning.PERHAPS_PART,
    Meaning.DASH,
}


_AGENTS = (Meaning.AGENT, Meaning.PERHAPS_AGENT)
_OPERATIONS = (Meaning.OPERATION, Meaning.PERHAPS_PART)  # 'post OP'


class _Strange(NamedTuple):
    """A word that is not known."""

    word: str


def read(description: str) -> Words:
    """The meanings of a description's words."""
    tokens = list(_tokens(description))
    meanings = list(_meanings(tokens))
    kinds = [meaning for meaning in meanings if isinstance(meaning, str)]
    known, agent = _negated(_without_operations([meaning for meaning in meanings if isinstance(meaning, Meaning)]))
    if Meaning.DIXON in known and {"w", "water"} & {*tokens} and not {"f", "fat"} & {*tokens}:  # the water image
        known = [*(meaning for meaning in known if meaning is not Meaning.FAT), Meaning.FAT_SATURATED]
    elif tokens[-1:] == ["in"] or (tokens[-1:] == ["w"] and MEANINGS.get("".join(tokens[-2:-1])) not in ANCHORS):
        known.append(Meaning.PERHAPS_PART)
    strange = next((meaning.word for meaning in meanings if isinstance(meaning, _Strange)), "")
    return Words(frozenset(known), agent, kinds[0] if kinds else "", strange)


_NO_AGENT = re.compile(r"(none|no|n|non|nein|false|nil|na|n/a|not|0+([.,]0+)?)([\s_-]*(agent|inject\w*|ml|cc))*")
_EDGES = " .,;()[]-_"
_GIVEN = re.compile(r"\b(given|applicable|used|administered|gegeben|verabreicht)\b")


def denies_agent(text: str) -> bool:
    """Whether a text that stands where an agent is named says that there was none."""
    if not text.strip(_EDGES):
        return True
    text = _GIVEN.sub(" ", text.casefold())
    if _NO_AGENT.fullmatch(text.strip(_EDGES)):
        return True
    if any(MEANINGS.get(token) is Meaning.BEFORE for token in _tokens(text)):
        return False
    found = read(text), read(f"contrast {text}")
    return any(words.agent == "before" and not words.strange for words in found)


_LATIN = str.maketrans({"ł": "l", "ø": "o", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "ı": "i", "þ": "th"})


def _tokens(description: str) -> Iterator[str]:
    text = "".join(letter for letter in unicodedata.normalize("NFKD", description) if not unicodedata.combining(letter))
    text = text.casefold().translate(_LATIN).replace("_", " ")
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", text)
    for pattern, spelling in SPELLINGS:
        text = re.sub(pattern, spelling, text)
    for chunk in re.findall(r"[a-z0-9]+|[+?\ufffd]|[^\W_a-z0-9]+", text):
        yield from _segments(chunk)


@cache
def _segments(chunk: str) -> tuple[str, ...]:
    """The words that are written together in a chunk, as 'axt1post'; the chunk itself where it is not made of known ones."""
    if chunk in MEANINGS or chunk == "+" or (chunk,) in PHRASES:
        return (chunk,)
    if chunk.startswith(("gado", "gada")) or any(name in chunk for name in AGENT_NAMES):
        return ("gado",)
    parts = _split(chunk)
    if parts and (len(parts) == 1 or any(MEANINGS.get(part) in ANCHORS or len(part) > 3 for part in parts)):
        return parts
    for word in EMBEDDED:
        before, found, after = chunk.partition(word)
        if found:
            return (*(_segments(before) if before else ()), *_segments(word), *(_segments(after) if after else ()))
    weighting = re.fullmatch(r"[a-z]{0,2}?(t[12])w?(?!\d)(.*)", chunk)  # Philips writes sT2W, eT1W
    if weighting:
        return (weighting[1], *(_segments(weighting[2]) if weighting[2] else ()))
    return _numbered(chunk)


def _numbered(chunk: str) -> tuple[str, ...]:
    """The known words and the numbers of a chunk such as '32ch', 'p2' or 'pat017'; the chunk itself where it is none."""
    runs = re.findall(r"[a-z]+|\d+", chunk)
    numbers = tuple(run for run in runs if run.isdecimal())
    if numbers and all(run.isdecimal() or len(run) == 1 or run in MEANINGS for run in runs):
        return tuple(run for run in runs if run.isdecimal() or len(run) > 1)
    return numbers if re.fullmatch(r"[a-z]{1,3}\d{2,}", chunk) else (chunk,)


@cache
def _split(chunk: str) -> tuple[str, ...]:
    """A chunk as the fewest known words and numbers; empty where it is not made of them."""
    best: tuple[str, ...] = ()
    for end in range(len(chunk), 0, -1):
        word, rest = chunk[:end], chunk[end:]
        known = MEANINGS.get(word, Meaning.NEUTRAL) not in _OF_THEIR_OWN and word != "t2s"  # of t2stir, t2space
        if not (known or word in ("2d", "3d") or word.isdecimal()):
            continue
        if word[-1].isdecimal() and rest[:1].isdecimal() and not (word[0] == "t" and rest[:2] in ("2d", "3d")):
            continue
        others = _split(rest) if rest else ()
        if (others or not rest) and (not best or len(others) + 1 < len(best)):
            best = (word, *others)
    return best


def _meanings(tokens: Sequence[str]) -> Iterator[Meaning | str | _Strange]:
    place = 0
    while place < len(tokens):
        length = next((n for n in (2, 1) if tuple(tokens[place : place + n]) in PHRASES), 0)
        token = tokens[place]
        if length:
            yield PHRASES[tuple(tokens[place : place + length])]
        elif token in MEANINGS:
            yield MEANINGS[token]
        elif token == "+":
            yield Meaning.FILLER
        elif _is_strange(token, [*tokens[max(place - 1, 0) : place], *tokens[place + 1 : place + 2]]):
            yield _Strange(token)
        place += length or 1


def _is_strange(token: str, neighbours: Sequence[str]) -> bool:
    """Whether a token that is no known word may mean something: a letter or a nought does beside the word for agent only."""
    if token.isdecimal() or (len(token) == 1 and token in ascii_lowercase):
        return not token.strip("0" + ascii_lowercase) and any(MEANINGS.get(word) is Meaning.AGENT for word in neighbours)
    return token not in ("2d", "3d", "4d")


def _without_operations(meanings: Sequence[Meaning]) -> list[Meaning]:
    """The meanings without operations, and without 'before' and 'after' where it is an operation that they speak of."""
    kept: list[Meaning] = []
    of_operation = False
    for place, meaning in enumerate(meanings):
        following = next((other for other in meanings[place + 1 :] if other is not Meaning.FILLER), None)
        if meaning in (Meaning.BEFORE, Meaning.AFTER) and following in _OPERATIONS:
            of_operation = True
        elif meaning in _OPERATIONS and (of_operation or meaning is Meaning.OPERATION):
            of_operation = False
        else:
            kept.append(meaning)
    return kept


def _is_of_agent(meanings: Sequence[Meaning], place: int) -> bool:
    """Whether the 'after' at a place is of an agent, not of a part of the body or a visit beside it."""
    sides = meanings[:place][::-1], meanings[place + 1 :]
    beside = [next((other for other in side if other is not Meaning.FILLER), None) for side in sides]
    return not {Meaning.PLACE, Meaning.OCCASION} & {*beside}


def _negated(meanings: Sequence[Meaning]) -> tuple[list[Meaning], str]:
    """The meanings that hold, after 'without' and the like, and what they say of contrast agent."""
    holding: list[Meaning] = []
    before = after = perhaps = False
    negation: Meaning | None = None  # of the words that follow
    for place, meaning in enumerate(meanings):
        last = place == len(meanings) - 1
        previous = holding[-1] if holding else None
        beside = {*meanings[max(place - 1, 0) : place], *meanings[place + 1 : place + 2]}
        if meaning is Meaning.DASH:  # a minus, or a mere dash?
            perhaps |= Meaning.AGENT in beside and not (negation or after or Meaning.AFTER in holding)
        elif previous in _AGENTS and (meaning is Meaning.FREE or (last and meaning in (Meaning.WITHOUT, Meaning.BEFORE))):
            holding.pop()  # 'KM vor', 'Gd-'
            before = True
        elif meaning is Meaning.FREE and previous is Meaning.AFTER:
            before = True
        elif meaning in (Meaning.WITHOUT, Meaning.BEFORE):
            negation = meaning
            before |= meaning is Meaning.BEFORE
        elif negation and meaning in _AGENTS:
            before, after = True, after or Meaning.WITH in meanings  # 'with and without contrast'
        elif negation is Meaning.WITHOUT and meaning is Meaning.AFTER and Meaning.WITHOUT in beside:  # 'no post'
            before = True
        elif meaning in _TRANSPARENT or (negation is Meaning.WITHOUT and meaning is Meaning.FAT_SATURATED):
            continue
        elif meaning in (Meaning.NEUTRAL, Meaning.PLACE, Meaning.OCCASION):  # 'no wrap' says nothing of agent
            negation = None
        elif meaning is Meaning.AFTER and not _is_of_agent(meanings, place):
            negation, perhaps = None, True
        else:
            negation = None
            holding.append(meaning)
            before |= meaning is Meaning.NATIVE
    after = after or Meaning.AFTER in holding or Meaning.AGENT in holding
    either = Meaning.EITHER in meanings or {Meaning.NATIVE, Meaning.PERHAPS_AGENT} <= {*holding}  # 'nativ +'
    if either or (perhaps and Meaning.DASH in meanings):
        return holding, "unclear"
    if after or before:
        return holding, "unclear" if after and before else "after" if after else "before"
    with_what = {Meaning.WITH, Meaning.WITHOUT} <= {*meanings} or [*meanings[-1:]] == [Meaning.WITH]  # 'w & w/o', 'T1 with'
    return holding, "unclear" if perhaps or with_what or Meaning.PERHAPS_AGENT in holding else ""

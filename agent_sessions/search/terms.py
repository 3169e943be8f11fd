"""Splits a search term into words, and finds the spellings that count as equal.

Texts are stored as they came, so the term is spelled in each way that counts as equal. That
costs nothing as messages are written, and positions in a text are positions in the original.
"""

from __future__ import annotations

import re
from unicodedata import normalize

from agent_sessions.postgresql.search_index import IDEOGRAPHS, LATIN, SYLLABLES

#: A term of more words is looked for as one text.
MAX_WORDS = 16

#: Characters of a word that is looked for as a whole word, which takes a regular expression.
LONGEST_WORD = 500

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PIECE = re.compile(r"[^\W_]+")

# With fewer letters PostgreSQL's index has nothing to look for: none of its trigrams is known.
_TRIGRAM = re.compile(
    rf"[{SYLLABLES}]|[^\W_]{{3}}|[!-/:-@\[-`{{-~][^\W_]|[^\W_]{{2}}[!-/:-@\[-`{{-~]"
)
_SYLLABLE = re.compile(f"[{SYLLABLES}]")
_HIDING = re.compile("[\u0800-\U0010ffff]")
_PAIR = re.compile("[0-9A-Za-z]{2}")
_AMBIGUOUS = re.compile(rf"\s|^0$|[0-9A-Za-z{LATIN}][^\x01-\x7f\u00c0-\u017f\u0300-\u036f]")

# Chinese, Japanese, Thai, Lao, Tibetan, Burmese and Khmer put no spaces between words.
_UNSPACED = re.compile(rf"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff{IDEOGRAPHS}]")

# Full and half width, ligatures, and the shapes of Arabic letters. Not all that NFKC takes for
# the same: whoever looks for ² does not want each 2.
_PRESENTATION = re.compile("[\ufb00-\ufdff\ufe70-\ufefc\uff00-\uffef]+")

# Arabic is written with and without vowel signs, the lengthening stroke, and the small signs
# that tell an alef, a final yeh and a final heh from their likes.
_ARABIC_SIGNS = "\u0640\u064b-\u0652\u0670"
_ARABIC_SIGN = re.compile(f"[{_ARABIC_SIGNS}]")
_ARABIC_LETTER = re.compile("[\u0620-\u063f\u0641-\u064a\u0671-\u06d3]")
_ARABIC_LIKES = {
    letter: likes
    for likes in ("\u0627\u0623\u0625\u0622\u0671", "\u064a\u0649", "\u0647\u0629")
    for letter in likes
}


def words_of(term: str) -> list[str]:
    """Return the distinct words of a term, which white space separates.

    A term no text can hold (with NUL or a lone surrogate) has none.
    """
    if _UNSTORABLE.search(term):
        return []
    words = list(dict.fromkeys(term.split()))
    return words if len(words) <= MAX_WORDS else [term.strip()]


def forms_of(word: str) -> list[str]:
    """Return the word as it is, composed, decomposed, and without presentation forms.

    So a decomposed é finds a composed one, and full-width letters find plain ones.
    """
    if word.isascii():
        return [word]
    forms = [word, normalize("NFC", word), normalize("NFD", word)]
    if _PRESENTATION.search(word):
        forms.append(_PRESENTATION.sub(lambda found: normalize("NFKC", found[0]), word).strip())
    return [form for form in dict.fromkeys(forms) if form]


def has_likes(word: str) -> bool:
    """Tell whether there are more spellings than ``forms_of()`` lists."""
    return not word.isascii() and _ARABIC_LETTER.search(word) is not None


def pattern_of(word: str) -> str:
    """Return a regular expression of all spellings, for Python and for PostgreSQL alike."""
    forms = [
        _arabic_pattern(form) if has_likes(form) else re.escape(form) for form in forms_of(word)
    ]
    forms = list(dict.fromkeys(forms))
    return forms[0] if len(forms) == 1 else f"(?:{'|'.join(forms)})"


def has_boundaries(word: str) -> bool:
    """Tell whether the word can stand as a word: it has letters, of a script that parts words."""
    return (
        _PIECE.search(word) is not None
        and _UNSPACED.search(word) is None
        and len(word) <= LONGEST_WORD
    )


def has_trigrams(word: str) -> bool:
    """Tell whether PostgreSQL's index can find the word anywhere in a text."""
    return is_pair(word) or _TRIGRAM.search(word) is not None


def is_syllable(word: str) -> bool:
    """Tell whether the word is one Chinese, Japanese or Korean character."""
    return _SYLLABLE.fullmatch(word) is not None


def hides_in_patterns(word: str) -> bool:
    """Tell whether there are letters that PostgreSQL's index does not see in a pattern."""
    return _HIDING.search(word) is not None


def is_pair(word: str) -> bool:
    """Tell whether the word is two letters or digits of ASCII."""
    return _PAIR.fullmatch(word) is not None


def needs_second_look(word: str) -> bool:
    """Tell whether the spaced text of PostgreSQL's index is not enough to find the word.

    In it, a 0 or two spaces behind a Latin letter may not be the text's own; and a pattern of
    spellings cannot be spaced as Chinese, Japanese and Korean are.
    """
    if has_likes(word) and _SYLLABLE.search(word):
        return True
    return any(_AMBIGUOUS.search(form) for form in forms_of(word))


def word_pattern_of(word: str, *, prefix: bool = False) -> str:
    """Return ``pattern_of()`` between the ends of a word, or (``prefix``) behind its beginning.

    For Python.
    """
    begins, ends = ends_of(word, prefix=prefix)
    before = r"(?<![^\W_])" if begins else ""
    behind = r"(?![^\W_])" if ends else ""
    return f"{before}{pattern_of(word)}{behind}"


def ends_of(word: str, *, prefix: bool = False) -> tuple[bool, bool]:
    """Tell whether a word must begin before it, and (not for a ``prefix``) end behind it.

    A character that is neither letter nor digit ends a word by itself.
    """
    return _PIECE.match(word) is not None, not prefix and _PIECE.match(word[-1:]) is not None


def _arabic_pattern(text: str) -> str:
    pieces: list[str] = []
    for letter in _ARABIC_SIGN.sub("", text) or text:
        likes = _ARABIC_LIKES.get(letter)
        pieces.append(f"[{likes}]" if likes else re.escape(letter))
        if _ARABIC_LETTER.fullmatch(letter):
            pieces.append(f"[{_ARABIC_SIGNS}]*")
    return "".join(pieces)

"""What a search term asks for: its words, and which spellings are taken for the same.

Texts are stored as they came, so the term is spelled in each way that counts as equal. That
costs nothing as messages are written, and positions in a text are positions in the original.
"""

from __future__ import annotations

import re
from itertools import islice, product
from unicodedata import normalize

MAX_WORDS = 16
"""A term of more words is looked for as one text."""

LONGEST_INDEXED_WORD = 500
"""Characters of a word that is looked for as a whole word; PostgreSQL indexes none over 2 KB."""

IDEOGRAPHS = (
    r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
"""Chinese and Japanese characters: a range for regular expressions of Python and PostgreSQL."""

_MAX_SPELLINGS = 32
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PIECE = re.compile(r"[^\W_]+")
_TOKEN = re.compile(rf"[{IDEOGRAPHS}]|(?:(?![{IDEOGRAPHS}])[^\W_])+")
_IDEOGRAPHS = re.compile(f"[{IDEOGRAPHS}]+")

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
    """Return the distinct words of a term: what stands between white space.

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
    """Tell whether there are more spellings than :func:`forms_of` lists."""
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
        and len(word) <= LONGEST_INDEXED_WORD
    )


def is_ideographic(word: str) -> bool:
    """Tell whether the word is made of Chinese or Japanese characters only."""
    return word.isalnum() and _IDEOGRAPHS.fullmatch(word) is not None


def word_pattern_of(word: str, *, prefix: bool = False) -> str:
    """Return :func:`pattern_of` between the ends of a word, or (``prefix``) behind its beginning.

    For Python. A character that is neither letter nor digit ends a word by itself.
    """
    before = r"(?<![^\W_])" if _PIECE.match(word) else ""
    behind = r"(?![^\W_])" if not prefix and _PIECE.match(word[-1:]) else ""
    return f"{before}{pattern_of(word)}{behind}"


def word_query_of(word: str, *, prefix: bool = False) -> str:
    """Return PostgreSQL's text search query for the word's letters and digits.

    All runs of them, and each Chinese or Japanese character, must occur as words; with
    ``prefix`` the last one may go on.
    """
    alternatives = []
    for form in _spellings(word):
        pieces = [f"'{piece}'" for piece in _TOKEN.findall(form)]
        if prefix and pieces and _PIECE.match(form[-1:]):
            pieces[-1] += ":*"
        if pieces:
            alternatives.append(" & ".join(pieces))
    return " | ".join(f"({query})" for query in dict.fromkeys(alternatives))


def _spellings(word: str) -> list[str]:
    forms = forms_of(word)
    if has_likes(word):
        bare = _ARABIC_SIGN.sub("", forms[-1])
        variants = product(*(_ARABIC_LIKES.get(letter, letter) for letter in bare))
        forms += ["".join(variant) for variant in islice(variants, _MAX_SPELLINGS)]
    return forms


def _arabic_pattern(text: str) -> str:
    pieces: list[str] = []
    for letter in _ARABIC_SIGN.sub("", text) or text:
        likes = _ARABIC_LIKES.get(letter)
        pieces.append(f"[{likes}]" if likes else re.escape(letter))
        if _ARABIC_LETTER.fullmatch(letter):
            pieces.append(f"[{_ARABIC_SIGNS}]*")
    return "".join(pieces)

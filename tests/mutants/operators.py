"""What one small change of a module may be."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

#: Cosmic Ray's operators that change what a program does, one or two for each kind of place.
_OPERATORS = tuple(
    f"core/{name}"
    for name in (
        *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr"),
        *("ReplaceOrWithAnd", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
        *("ExceptionReplacer", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop"),
        *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Add", "Div_Mul")),
        *(
            f"ReplaceComparisonOperator_{pair}"
            for pair in (
                *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
                *("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "Gt_LtE"),
            )
        ),
        *("ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_USub_UAdd"),
    )
)
#: Lines in which a change is not a change of behaviour.
_UNSEEN = re.compile(
    r"^\s*(logger|audit)\.|^\s*@(overload|abstractmethod|override)|TYPE_CHECKING|__slots__|"
    # Pauses and sizes have no right value that a test could know: those of constants, of caches,
    # of digests, of a dataclass in memory, and of the steps of a scan or of waiting for a lock.
    r"^_?[A-Z][A-Z_0-9]*\b.*=|\b(maxsize|slots|digest_size) ?=|"
    # A constant is counted as often as any other.
    r"Count\(Value\(\d|"
    r"\b(sleep|count|itersize): (float|int) = |^\s*time\.sleep\(|\[: ?\d\d+\]|"
    r"^\s*(class|def|async def) "
)
#: A bound that is a constant of the module's own: whether it is inside or outside is like its size.
_OWN_BOUND = re.compile(r"[<>]=? _[A-Z][A-Z_0-9]+\b|\b(?<!\.)_[A-Z][A-Z_0-9]+ [<>]=? ")
#: Without the decorator a function computes again what it knew, or a type checker knows less.
_OF_TIME_OR_TYPES = re.compile(r"@(functools\.)?(lru_)?cache\b|@(typing\.)?overload\b")
#: One row more than a page tells whether there is another page; so do two.
_LOOKS_FURTHER = re.compile(r"\[: ?\w+ \+ ?2\]|\b(largest|limit|size) \+ ?2\b")
#: What ``zip`` is told is an assertion, which fails only beside another fault.
_NO_ASSERTION = re.compile(r"\bstrict=False\b")
_BOUNDARIES = ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt")

_LUA = (
    (r"==", "~="),
    (r"~=", "=="),
    (r"<(?![=])", "<="),
    (r">(?![=])", ">="),
    (r"\band\b", "or"),
    (r"\bor\b", "and"),
    (r"\bnot\b", ""),
    (r"\breturn 0\b", "return 1"),
    (r"\breturn 1\b", "return 0"),
    (r"(?m)^ *redis\.call\(.*\)$", ""),
    # Of a value's head, more may be read than is needed.
    (r"(?<!GETRANGE', KEYS\[1\], 0, )(?<=[ ,(+-])\d+\b(?!')", lambda match: str(int(match[0]) + 1)),
)
_SQL = (
    (r"\bAND\b", "OR"),
    (r"\bOR\b(?! REPLACE)", "AND"),
    (r"\bNOT (?=EXISTS|IN|LIKE|are)", ""),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bDESC\b", "ASC"),
    (r"\bASC\b", "DESC"),
    (r"\bGREATEST\b", "LEAST"),
    (r"\bLEAST\b", "GREATEST"),
    (r"\bMIN\b", "MAX"),
    (r" <> ", " = "),
    (r" = (?=%|p_|v_|\w+\.)", " <> "),
    (r" < ", " <= "),
    (r" > ", " >= "),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r"(?m)^\s+FOR (NO KEY )?UPDATE\b|(?<=\w) FOR NO KEY UPDATE(?=;)", ""),
)
_IS_LUA = re.compile(r"redis\.p?call|KEYS\[|ARGV\[")
_IS_SQL = re.compile(r"\b(SELECT|UPDATE|WHERE|INSERT INTO|ORDER BY|CASE WHEN|AND|DELETE FROM)\b")


class Mutant(NamedTuple):
    """A module's text with one change."""

    line: int
    what: str
    #: The line as it becomes.
    becomes: str
    code: str


def sample(code: str, number: int, chance: random.Random) -> list[Mutant]:
    """Return so many different mutants of a module, or as many as there are.

    Strings with Lua or SQL, statements to leave out, and Python's operators take turns.
    """
    kinds = [list(kind) for kind in (_in_strings(code), _left_out(code), _operators(code))]
    for kind in kinds:
        chance.shuffle(kind)
    found: dict[str, Mutant] = {}
    # Operators twice: they are what most of a module is made of.
    turns = [kinds[2], kinds[0], kinds[2], kinds[1]]
    while len(found) < number and any(kinds):
        for kind in turns:
            if kind and len(found) < number:
                mutant = _made(code, *kind.pop())
                if mutant is not None:
                    found.setdefault(mutant.code, mutant)
    return list(found.values())


def _made(code: str, what: str, place: int, text: str) -> Mutant | None:
    """Return the mutant of an operator (its occurrence, no text) or of an edit (its text)."""
    if not text:
        operator = get_operator(what)
        made = mutate_code(code, operator(), place)
        if made is None or made == code:
            return None
        text = made
    try:
        if ast.dump(ast.parse(text)) == ast.dump(ast.parse(code)):
            return None
    except SyntaxError:
        return None
    lines = zip(code.splitlines(), text.splitlines(), strict=False)
    line = next((n for n, (old, new) in enumerate(lines, 1) if old != new), 0)
    if what.endswith("RemoveDecorator"):
        # The empty lines before go, too.
        while not code.splitlines()[line - 1].strip():
            line += 1
        if _OF_TIME_OR_TYPES.search(code.splitlines()[line - 1]) or _is_of_protocol(code, line):
            return None
    changed = code.splitlines()[line - 1]
    if _UNSEEN.search(changed) and not what.startswith("string"):
        return None
    if _LOOKS_FURTHER.search(text.splitlines()[line - 1]):
        return None
    if what.endswith("TrueWithFalse") and _NO_ASSERTION.search(text.splitlines()[line - 1]):
        return None
    if what.endswith(_BOUNDARIES) and _OWN_BOUND.search(changed):
        return None
    return Mutant(line, what.removeprefix("core/"), text.splitlines()[line - 1].strip(), text)


def _is_of_protocol(code: str, line: int) -> bool:
    """Return whether a line is in a class for type checkers alone."""
    return any(
        isinstance(node, ast.ClassDef)
        and node.lineno <= line <= (node.end_lineno or 0)
        and any("Protocol" in ast.unparse(base) for base in node.bases)
        for node in ast.walk(ast.parse(code))
    )


def _operators(code: str) -> Iterator[tuple[str, int, str]]:
    tree = get_ast(code)
    nodes = list(ast_nodes(tree))
    for name in _OPERATORS:
        operator = get_operator(name)()
        count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
        for occurrence in range(count):
            yield name, occurrence, ""


def _left_out(code: str) -> Iterator[tuple[str, int, str]]:
    """Yield the text without one statement that does something."""
    lines = code.splitlines(keepends=True)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.AugAssign | ast.Raise) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
        ):
            assert node.end_lineno is not None
            indent = lines[node.lineno - 1][: node.col_offset]
            before, after = lines[: node.lineno - 1], lines[node.end_lineno :]
            yield "statement left out", node.lineno, "".join([*before, f"{indent}pass\n", *after])


def _in_strings(code: str) -> Iterator[tuple[str, int, str]]:
    """Yield the text with one change of Lua or SQL in a string."""
    lines = code.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data = code.encode()
    tree = ast.parse(code)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant | ast.JoinedStr) or id(node) in documentation:
            continue
        if isinstance(node, ast.Constant) and not isinstance(node.value, str):
            continue
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        text = data[start:end].decode()
        rules = _LUA if _IS_LUA.search(text) else _SQL if _IS_SQL.search(text) else ()
        for pattern, replacement in rules:
            for match in re.finditer(pattern, text):
                new = replacement(match) if callable(replacement) else replacement
                changed = text[: match.start()] + new + text[match.end() :]
                whole = (data[:start] + changed.encode() + data[end:]).decode()
                yield f"string: {match[0].strip()!r} becomes {new!r}", node.lineno, whole

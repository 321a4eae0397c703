"""PyYAML's complaints in the words of who writes a config."""

from __future__ import annotations

import yaml


def explain(error: yaml.MarkedYAMLError, text: str) -> tuple[str, int, int]:
    """What a YAML mistake means for who wrote it, and the line and column (from 0) to look at."""
    lines = text.splitlines()
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    problem = str(error.problem or "")
    context = str(error.context or "")
    row = lines[line] if line < len(lines) else ""
    indent = row[: len(row) - len(row.lstrip())]
    if "\t" in indent:
        return "a tab cannot indent a line; use spaces", line, indent.index("\t")
    character = row[column : column + 1]
    why = problem
    if "mapping values are not allowed" in problem:
        why = "`:` cannot stand here; does the line above lack its `:`, or is the indentation off? Quote text with `: `"
    elif "block sequence entries" in problem:
        why = "a list cannot start here; put each `- item` on a line of its own, or write [item, item]"
    elif "cannot start any token" in problem:
        why = f"text cannot start with {character!r}; put it in quotes"
    elif "unexpected end of stream" in problem and "quoted" in context:
        why = "the quotes that open here are not closed"
        if error.context_mark is not None:
            line, column = error.context_mark.line, error.context_mark.column
    elif "flow sequence" in context or "flow mapping" in context:
        opened, closing = ("[", "]") if "sequence" in context else ("{", "}")
        why = f"the {opened} that opens here is not closed: expected `,` or `{closing}`"
        if error.context_mark is not None and (line != error.context_mark.line or not row[column:].strip()):
            line, column = error.context_mark.line, error.context_mark.column
        else:
            why = f"expected `,` or `{closing}` here"
    elif "expected ':'" in problem or "expected key" in problem or "block end" in problem:
        why = "expected `key: value` at the indentation of the lines above"
    elif "expected '-'" in problem:
        why = "expected `- item` at the indentation of the list above"
    return why, line, column

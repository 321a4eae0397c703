"""docs/config.md is what the schema says, whole and current."""

import re
from pathlib import Path

from trainkit.config.help import json_schema, reference

PAGE = reference()
ROOT = Path(__file__).parents[3]


def test_the_page_in_docs_is_current():
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == PAGE, "run: trainkit config schema --markdown > docs/config.md"


def test_every_key_of_the_schema_has_a_meaning_and_a_default_or_an_example():
    schema = json_schema()
    keys = {
        key
        for properties in (schema["properties"], *(entry.get("properties", {}) for entry in schema["$defs"].values()))
        for key in properties
    }
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert keys - {"type", "extends"} == {row[0].strip(" `") for row in rows}
    for key, meaning, values, default, *_ in rows:
        assert meaning.strip(), key
        assert values.strip(), key
        assert default.strip() not in ("needed", "none") or "mapping" in values, f"{key} has no example"


def test_links_lead_to_headings():
    anchors = {re.sub(r"[^\w-]", "", line.lstrip("# ").lower()) for line in PAGE.splitlines() if line.startswith("#")}
    links = set(re.findall(r"\(#([^)]+)\)", PAGE))
    assert links
    assert links <= anchors

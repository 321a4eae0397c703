"""Values of Python by column: each row is read as it is alone, whatever stands in the others."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.tables import NumberStyle, encode_columns

ENCODING = {
    "columns": [
        {"name": "price", "kind": "numeric", "style": NumberStyle(decimal=",", thousands=".").to_json()},
        {"name": "day", "kind": "datetime", "format": "%d.%m.%Y"},
        {"name": "shop", "kind": "categorical", "categories": ["1", "north"]},
    ],
    "inputs": [
        {"name": "price", "column": "price", "offset": 0.0},
        {"name": "day.year", "column": "day", "part": "year", "offset": 0.0},
        {"name": "shop", "column": "shop", "categories": 2, "own": False},
    ],
    "missing": "impute",
    "unseen": "own",
    "missing_values": [""],
}
PRICES = st.sampled_from([1.5, 2, "1.000,5", "1,5", "1.5x", None, "", float("nan")])
ROWS = st.tuples(PRICES, st.sampled_from([None, "05.01.2024"]), st.sampled_from([1, "1", "north", None, "south"]))


@settings(deadline=None, max_examples=50)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_a_row_is_read_as_it_is_alone(rows):
    def encode(some):
        return encode_columns(
            {
                name: list(column)
                for name, column in zip(("price", "day", "shop"), zip(*some, strict=True), strict=True)
            },
            ENCODING,
        )

    together = encode(rows)
    assert together.names == [f"[{row}]" for row in range(len(rows))]
    for row, cells in enumerate(rows):
        alone = encode([cells])
        assert np.array_equal(together.inputs[row], alone.inputs[0], equal_nan=True)
        assert together.bad.get(row) == alone.bad.get(0)
    assert sum(together.filled.missing.values()) == sum(
        cell is None or cell == "" or cell != cell for row in rows for cell in row
    )

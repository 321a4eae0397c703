"""Tables: how their files are written, what their columns hold, and how these become numbers."""
# mypy: implicit-reexport

from trainkit.data.tables.encoded import EncodedRows, encode_columns, encode_table, labeled_places
from trainkit.data.tables.encoding import Encoding, Filled, encode_rows, raw_rows, table_encoding
from trainkit.data.tables.first_pass import TableOptions
from trainkit.data.tables.formats import TableFormat
from trainkit.data.tables.layout import (
    TableLayout,
    flagged,
    model_layout,
    numeric_names,
    offsets,
    stored_layout,
    with_gaps,
)
from trainkit.data.tables.load import load_table, load_table_to_score
from trainkit.data.tables.numbers import NumberStyle, find_number_style, parse_numbers
from trainkit.data.tables.paths import is_table_name
from trainkit.data.tables.reading import open_table
from trainkit.data.tables.split_column import SplitColumn
from trainkit.data.tables.target import target_from

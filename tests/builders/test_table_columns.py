"""A table with gaps, categories and offsets: from stored rows, and from raw ones in a program, to the same inputs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainkit.builders import Setup, build_setup
from trainkit.builders.data import dataset_info
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset, Part, Split
from trainkit.data.kept_results import KeptResults
from trainkit.data.tables import model_layout, with_gaps
from trainkit.errors import UserError
from trainkit.exports.program import build_prepare, build_program, describe_program
from trainkit.models import layer_table

OFFSET = 1_700_000_000.0
ENCODING: dict[str, Any] = {
    "columns": [],
    "inputs": [
        {"name": "age", "offset": 0.0},
        {"name": "seen", "offset": OFFSET},
        {"name": "constant", "offset": 0.0},
        {"name": "city", "categories": 12, "own": True},
        {"name": "sex", "categories": 2, "own": False},
    ],
}


def raw_rows(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    rows = np.stack(
        [
            rng.normal(40, 12, count),
            OFFSET + rng.integers(0, 100, count),
            np.full(count, 7.0),
            rng.integers(0, 13, count),
            rng.integers(0, 2, count),
        ],
        1,
    )
    rows[::5, 1] = np.nan
    return rows


def stored(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (rows - [0, OFFSET, 0, 0, 0]).astype(np.float32)


def table(count: int = 60) -> Dataset:
    inputs = stored(raw_rows(count))
    train = np.arange(count, dtype=np.int64)
    return Dataset(
        name="people",
        kind="table",
        task="classification",
        parts={"all": Part(inputs, np.arange(count, dtype=np.int64) % 3)},
        splits={"train": Split("all", train)},
        fingerprint={},
        class_names=("a", "b", "c"),
        feature_names=tuple(each["name"] for each in ENCODING["inputs"]),
        table_encoding=with_gaps(ENCODING, inputs, train),
    )


def setup_of(*transforms: str, model: Any = "mlp", data: Dataset | None = None) -> Setup:
    config = Config.model_validate(
        {
            "dataset": {"type": "iris", "val_fraction": 0.0, "test_fraction": 0.0},
            "transforms": list(transforms),
            "model": model,
            "device": "cpu",
        }
    )
    return build_setup(config, data=data or table())


SCALINGS = [(), ("standardize",), ("robust_scale",), ("quantile",)]


@pytest.mark.parametrize("transforms", SCALINGS)
def test_training_and_programs_make_the_same_inputs(transforms: tuple[str, ...]) -> None:
    setup = setup_of(*transforms)
    assert setup.input_shape == (6,)
    [batch] = setup.sample_batches(batch_size=60, device=torch.device("cpu")).epoch(0)
    prepare = build_prepare(setup.preprocessing)
    assert torch.equal(prepare(torch.from_numpy(raw_rows(60))), batch.inputs)
    inputs = batch.inputs.numpy()
    assert np.isfinite(inputs).all()
    np.testing.assert_array_equal(inputs[:, 3], np.isnan(raw_rows(60)[:, 1]))
    np.testing.assert_array_equal(inputs[:, 4:], raw_rows(60)[:, 3:])
    if transforms:
        assert (inputs[:, 2] == 0).all()
        later = raw_rows(60)
        later[:, 2] = 1e9
        assert torch.equal(prepare(torch.from_numpy(later)), batch.inputs)
    else:
        assert (inputs[:, 2] == 7).all()


@pytest.mark.parametrize("transforms", SCALINGS)
def test_kept_statistics_are_those_of_the_rows_to_the_bit(tmp_path: Path, transforms: tuple[str, ...]) -> None:
    expected = setup_of(*transforms).preprocessing
    data = table()
    split = replace(data.splits["train"], kept=KeptResults(tmp_path, "people", {"rows": "these"}))
    for inputs in (data.parts["all"].inputs, np.zeros((60, 5), np.float32)):  # what is kept is not measured again
        part = replace(data.parts["all"], inputs=inputs)
        kept = replace(data, parts={"all": part}, splits={"train": split})
        assert setup_of(*transforms, data=kept).preprocessing == expected
    other = replace(split, kept=KeptResults(tmp_path, "people", {"rows": "others"}))
    assert setup_of(*transforms, data=replace(kept, splits={"train": other})).preprocessing != expected


def test_digits_of_large_numbers_are_kept() -> None:
    setup = setup_of("standardize")
    prepare = build_prepare(setup.preprocessing)
    two = raw_rows(2)
    two[1] = two[0]
    two[:, 1] = OFFSET + 50, OFFSET + 51  # float32 has steps of 128 there
    first, second = prepare(torch.from_numpy(two))[:, 1].tolist()
    deviation = float(np.nanstd(stored(raw_rows(60))[:, 1]))
    assert second - first == pytest.approx(1 / deviation, rel=1e-4)


def test_what_is_no_known_code_is_the_own_value() -> None:
    prepare = build_prepare(setup_of().preprocessing)
    rows = np.repeat(raw_rows(1), 6, axis=0)
    rows[:, 3] = [12, 13, -1, 2.5, np.nan, np.inf]
    rows[:, 4] = [2, 3, -1, 0.5, np.nan, -np.inf]
    assert prepare(torch.from_numpy(rows))[:, 4:].tolist() == [[12, 2]] * 6


@pytest.mark.parametrize("model", ["mlp", {"type": "sequential", "layers": ["Linear"]}])
def test_plain_models_begin_with_one_hot_columns(model: Any) -> None:
    setup = setup_of("robust_scale", model=model)
    assert "one_hot" not in "".join(setup.model.state_dict())
    [batch] = setup.sample_batches(batch_size=60, device=torch.device("cpu")).epoch(0)
    hot = setup.model.one_hot(batch.inputs)  # type: ignore[operator]
    codes = batch.inputs[:, 4:].long()
    city = torch.nn.functional.one_hot(codes[:, 0], 13)
    sex = torch.nn.functional.one_hot(codes[:, 1], 2)
    assert torch.equal(hot, torch.cat([batch.inputs[:, :4], city, sex], 1))
    unknown = batch.inputs.clone()
    unknown[:, 5] = 2
    assert (setup.model.one_hot(unknown)[:, -2:] == 0).all()  # type: ignore[operator]
    layout = model_layout(setup.data.table_encoding)
    assert layout is not None
    rows = layer_table(setup.model, setup.input_shape)
    assert (rows[0].type, rows[0].output_shape, rows[0].parameters) == ("OneHot", (layout.one_hot_width,), 0)
    assert dataset_info(setup.config, setup.data).num_features == layout.one_hot_width == 19


def test_a_model_without_categories_has_no_layer_for_them() -> None:
    config = Config.model_validate({"dataset": "iris", "transforms": ["robust_scale"], "model": "mlp"})
    assert [name for name, _ in build_setup(config).model.named_children()] == ["linear1", "activation1", "output"]


@pytest.mark.parametrize("transforms", SCALINGS)
def test_a_program_of_a_table_with_gaps_can_be_scripted(transforms: tuple[str, ...]) -> None:
    setup = setup_of(*transforms)
    program = build_program(setup.model, setup.preprocessing, loss="cross_entropy")
    spec = describe_program(setup.preprocessing, loss="cross_entropy")
    assert (spec.input_shape, spec.input_dtypes) == ((5,), ("float64",))
    rows = torch.from_numpy(raw_rows(9, seed=1))
    [batch] = setup.sample_batches(batch_size=60, device=torch.device("cpu")).epoch(0)
    expected = setup.model.eval()(batch.inputs).softmax(1)
    torch.testing.assert_close(program(torch.from_numpy(raw_rows(60))), expected)
    torch.testing.assert_close(torch.jit.script(program)(rows), program(rows))  # type: ignore[no-untyped-call]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "tabular_mlp"])
@pytest.mark.parametrize("transforms", SCALINGS)
def test_onnx_holds_a_table_with_gaps(transforms: tuple[str, ...], model: str) -> None:
    from trainkit.exports.formats import onnx_bytes
    from trainkit.exports.standalone_runner import load

    setup = setup_of(*transforms, model=model)
    setup.suit_weights()
    program = build_program(setup.model, setup.preprocessing, loss="cross_entropy")
    rows = raw_rows(64, seed=3)
    rows[0] = np.nan
    rows[1, 3:] = 99
    data = onnx_bytes(program, torch.from_numpy(rows[:2].copy()), input_name="rows", output_names=["probabilities"])
    [found] = load(data, "onnx")(rows)
    np.testing.assert_allclose(found, program(torch.from_numpy(rows)).numpy(), atol=1e-5)


@pytest.mark.parametrize("members", [1, 3])
def test_a_program_holds_the_gains_in_its_weights_with_the_same_bits(members: int) -> None:
    setup = setup_of("robust_scale", model={"type": "tabular_mlp", "members": members})
    setup.suit_weights()
    program = build_program(setup.model, setup.preprocessing, loss="cross_entropy")
    assert program.model.linear1.gain == 1.0  # type: ignore[union-attr]
    assert setup.model.linear1.gain != 1.0  # type: ignore[union-attr]
    [batch] = setup.sample_batches(batch_size=60, device=torch.device("cpu")).epoch(0)
    assert torch.equal(program.model(batch.inputs), setup.model.eval()(batch.inputs))  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 3])
def test_int8_leaves_the_embeddings_of_numbers_as_they_are(members: int) -> None:
    from trainkit.exports.formats import onnx_bytes, quantize_onnx
    from trainkit.exports.standalone_runner import load

    setup = setup_of("robust_scale", model={"type": "tabular_mlp", "members": members})
    setup.suit_weights()
    program = build_program(setup.model, setup.preprocessing, loss="cross_entropy")
    rows = raw_rows(64, seed=3)
    data = onnx_bytes(program, torch.from_numpy(rows[:2].copy()), input_name="rows", output_names=["probabilities"])
    for kind in ("dynamic", "static"):
        small = quantize_onnx(data, kind=kind, input_name="rows", calibration=rows)  # type: ignore[arg-type]
        [found] = load(small, "onnx")(rows)
        np.testing.assert_allclose(found, program(torch.from_numpy(rows)).numpy(), atol=0.1)


def test_float16_is_refused_where_it_would_mix_categories_up() -> None:
    setup = setup_of()
    assert build_program(setup.model, setup.preprocessing, loss="cross_entropy", half=True)
    many = {"name": "zip", "categories": 3000, "own": False}
    encoding = {**setup.preprocessing["table_encoding"], "inputs": [many]}
    with pytest.raises(UserError, match="float16 does not hold the codes of a column with 3000 categories"):
        build_program(setup.model, {**setup.preprocessing, "table_encoding": encoding}, loss="cross_entropy", half=True)


def test_first_weights_of_a_tabular_mlp_depend_on_the_seed_and_the_data_alone() -> None:
    first, second = setup_of("robust_scale", model="tabular_mlp"), setup_of("robust_scale", model="tabular_mlp")
    before = {name: value.clone() for name, value in first.model.state_dict().items()}
    torch.rand(3)
    first.suit_weights()
    second.suit_weights()
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])
        assert torch.equal(value, before[name]) == (not name.startswith(("linear", "output"))), name
    plain = setup_of("robust_scale")
    kept = {name: value.clone() for name, value in plain.model.state_dict().items()}
    plain.suit_weights()
    assert all(torch.equal(value, kept[name]) for name, value in plain.model.state_dict().items())


def test_quantities_alone_have_a_scale() -> None:
    assert setup_of().quantities == ["age", "seen", "constant"]
    config = Config.model_validate({"dataset": "iris", "model": "mlp"})
    setup = build_setup(config)
    assert setup.quantities == list(setup.data.feature_names)

"""The search on real data: tiny networks, real steps."""

import pytest

import trainkit
from trainkit.config import load_config
from trainkit.config.help.shipped import list_shipped
from trainkit.errors import ConfigError, Interrupted, UserError
from trainkit.system import Frontend, StopRequest
from trainkit.workflows.lr_find import edited, find, left_out, write_rate
from trainkit.workflows.lr_find.curves import learning_rates
from trainkit.workflows.lr_find.search import search

BASE = {
    "dataset": {"type": "digits", "val_fraction": 0.1, "test_fraction": 0.2},
    "model": {"type": "mlp", "hidden_sizes": [16]},
    "optimizer": {"type": "adam", "lr": 0.5},
    "training": {"epochs": 2, "batch_size": 64},
}
VARIANTS = {
    "as it is": {},
    "one batch an epoch, which is shorter than the search": {"training": {"epochs": 1, "batch_size": 2000}},
    "pieces, mixing, averages, clipping": {
        "training": {
            "epochs": 1,
            "batch_size": 64,
            "accumulation_steps": 2,
            "ema": {},
            "clip_grad_norm": 1.0,
            "mix": {"type": "mixup", "off_for_last": "5st"},
        }
    },
    "a head on frozen layers": {
        "fine_tuning": {"freeze": "backbone", "unfreeze": [{"at": "1st", "modules": "all"}]},
        "training": {"epochs": 1},
    },
    "groups": {
        "optimizer": {"type": "sgd", "momentum": 0.9, "groups": [{"modules": ["output"], "lr_scale": 0.1}]},
        "scheduler": {"type": "one_cycle", "warmup": "3st"},
        "training": {"epochs": 1},
    },
    "a regression": {"dataset": "diabetes", "transforms": ["standardize"], "training": {"epochs": 1}},
    "a table with the defaults of its model": {"dataset": "iris", "model": "tabular_mlp"},
}


def config_of(changes):
    config = {**BASE, **changes}
    if "model" in changes:
        config.pop("optimizer")
        config.pop("training")
    return config


@pytest.mark.parametrize("name", VARIANTS)
def test_a_number_is_found_and_nothing_is_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = trainkit.lr_find(config_of(VARIANTS[name]), steps=100, seeds=1)
    assert 1e-5 < result.lr < 5
    assert result.override == f"optimizer.lr={result.lr}"
    assert list(tmp_path.iterdir()) == []


def test_all_groups_rise_alike_and_what_is_frozen_stays_so(monkeypatch):
    from trainkit.workflows.lr_find import search as module

    seen = []

    def watched(state, plan, batch, *, guard, lr):
        groups = [group["lr"] / group.get("lr_scale", 1.0) for group in state.optimizer.param_groups]
        frozen = {name for name, parameter in state.model.named_parameters() if not parameter.requires_grad}
        seen.append((lr, groups, frozen))
        return step(state, plan, batch, guard=guard, lr=lr)

    step = module.train_step
    monkeypatch.setattr(module, "train_step", watched)
    config = BASE | VARIANTS["a head on frozen layers"] | {"optimizer": {"type": "adamw", "layer_decay": 0.5}}
    trainkit.lr_find(config, steps=100, seeds=1)
    rates, groups, frozen = zip(*seen, strict=True)
    assert list(rates) == pytest.approx(learning_rates(100)[: len(rates)])
    assert len(groups[0]) > 1
    for rate, values in zip(rates, groups, strict=True):
        assert values == pytest.approx([rate] * len(values))
    assert set(map(frozenset, frozen)) == {frozenset({"linear1.weight", "linear1.bias"})}


def test_seeds_differ_in_their_weights_and_share_the_samples():
    curves = search(load_config(BASE), steps=100, seeds=2, frontend=Frontend())
    again = search(load_config(BASE), steps=100, seeds=2, frontend=Frontend())
    assert [curve.seed for curve in curves] == [0, 1]
    assert curves[0].losses != curves[1].losses
    assert curves == again, "the same command, the same curves"
    assert find(curves).curves == curves


@pytest.mark.slow
def test_the_bits_of_a_run_do_not_depend_on_a_search_before_it(tmp_path):
    def weights():
        result = trainkit.train(BASE, overrides=["training.epochs=1"], runs_dir=tmp_path)
        return trainkit.load_model(result.best_checkpoint).model.state_dict()

    before = weights()
    trainkit.lr_find(BASE, steps=100, seeds=1)
    after = weights()
    assert all((before[name] == after[name]).all() for name in before)


def test_weights_that_diverge_at_once_lead_to_no_number():
    config = BASE | {"model": BASE["model"] | {"init": {"type": "orthogonal", "gain": 1e25}}}
    with pytest.raises(trainkit.TrainkitError, match=r"diverges before it falls|not finite"):
        trainkit.lr_find(config, steps=100, seeds=1)


def test_a_stop_and_the_progress(tmp_path):
    shown, stop = [], StopRequest()

    def progress(done, total):
        shown.append((done, total))
        if done == 120:
            stop.signum = 2

    with pytest.raises(Interrupted, match="the search was given up"):
        search(load_config(BASE), steps=100, seeds=2, frontend=Frontend(progress=progress, stop=stop))
    assert shown[-1] == (120, 200)


def test_lbfgs_and_numbers_that_are_too_low_are_refused():
    with pytest.raises(ConfigError, match="lbfgs finds the length of its steps itself"):
        trainkit.lr_find(BASE | {"optimizer": "lbfgs"})
    with pytest.raises(UserError, match="steps: expected 100 or more, got 10"):
        trainkit.lr_find(BASE, steps=10)


def test_what_the_search_leaves_out_is_said():
    assert list(left_out(load_config(BASE))) == []
    text = " ".join(left_out(load_config(BASE | VARIANTS["groups"] | VARIANTS["a head on frozen layers"])))
    assert "leaves out scheduler one_cycle and its warm-up; optimizer.lr is its highest value" in text
    assert "what fine_tuning unfreezes later stays frozen" in text
    own = " ".join(left_out(load_config({"dataset": "iris", "model": "tabular_mlp"})))
    assert "optimizer.lr 0.04 comes with tabular_mlp and its schedule" in own


@pytest.mark.parametrize("config", list_shipped(), ids=lambda config: config.name)
def test_the_learning_rate_of_a_shipped_config_can_be_written(config, tmp_path):
    path = tmp_path / config.path.name
    path.write_bytes(config.path.read_bytes())
    before, after = path.read_bytes().splitlines(), edited(path, 0.0125).splitlines()
    changed = [line for line in after if line not in before]
    assert len(changed) == 1
    assert b"0.0125" in changed[0]
    assert 0 <= len(after) - len(before) <= 1


def test_bytes_link_and_permissions_of_the_file_stay(tmp_path):
    text = "\ufeff# é\r\ndataset: iris\r\nmodel: mlp  # x\r\noptimizer: adam"
    (tmp_path / "real.yaml").write_bytes(text.encode())
    (tmp_path / "real.yaml").chmod(0o640)
    (tmp_path / "link.yaml").symlink_to("real.yaml")
    write_rate(tmp_path / "link.yaml", 0.03)
    assert (tmp_path / "link.yaml").is_symlink()
    assert (tmp_path / "real.yaml").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "real.yaml").read_bytes() == text.replace("adam", "{type: adam, lr: 0.03}").encode()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("model: tabular_mlp\n", "model: tabular_mlp\noptimizer: {lr: 0.03}\n"),
        ("extends: base.yaml\n", "extends: base.yaml\noptimizer: {lr: 0.03}\n"),
        ("model: mlp\n", "model: mlp\noptimizer: {type: adam, lr: 0.03}\n"),
    ],
)
def test_a_type_is_written_only_where_none_comes_with_the_model_or_another_file(text, written, tmp_path):
    base = "dataset: iris\nmodel: mlp\noptimizer: {type: sgd, momentum: 0.9}\n"
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "own.yaml").write_text(f"dataset: iris\n{text}")
    assert edited(tmp_path / "own.yaml", 0.03).decode() == f"dataset: iris\n{written}"

"""``model.weights``: the published weights, or those of a file, in a model that was just built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from trainkit.checkpoints import WeightsFile, find_weights, is_finite, match_weights, open_weights
from trainkit.config.schema import Config
from trainkit.config.schema.pretrained import Pretrained, Timm, Torchvision, published_weights, weights_file
from trainkit.errors import Problem, ProblemsError
from trainkit.models import current_names, head_names
from trainkit.runtime import Choice
from trainkit.system import Frontend
from trainkit.wording import listed, size_text


@dataclass(frozen=True)
class Loaded:
    """The weights that a model began with."""

    choices: dict[str, Choice] = field(default_factory=dict)
    """Under ``weights``: which they are, and which tensors were left out; {} for models without published weights."""
    pin: dict[str, Any] | None = None
    """What run.json and the checkpoints keep of their file (``Pin``); None where no file was read."""


def load_pretrained(
    config: Config,
    model: nn.Module,
    *,
    stored: Mapping[str, Any] | None = None,
    fetch: bool = False,
    frontend: Frontend | None = None,
) -> Loaded:
    """Load ``model.weights`` into a model with its first weights.

    Args:
        stored: the checkpoint to resume from, which has all weights: nothing is loaded, and its choice is kept.
        fetch: download what is not here; else the choice says what would be downloaded, and the model is left as it is.

    Raises:
        UserError: the weights are not there, damaged, or hold code.
        ProblemsError: they do not fit the model, which is left as it was.
        Interrupted: the frontend asked for a stop.
    """
    spec = config.model
    if not isinstance(spec, Pretrained):
        return Loaded()
    if stored is not None:
        kept = {name: Choice(**choice) for name, choice in stored["choices"].items() if name == "weights"}
        return Loaded(kept, stored.get("pretrained"))
    if spec.weights == "none":
        return Loaded({"weights": Choice("none", "as asked for: the network starts from scratch")})
    found = find_weights(
        spec.type,
        spec.name,
        spec.weights,
        path=weights_file(spec),
        sha256=spec.sha256,
        revision=spec.revision if isinstance(spec, Timm) else None,
    )
    why = "default" if spec.weights == "default" else "as asked for"
    if found.url is not None and not found.is_here and not fetch:
        return Loaded({"weights": Choice(found.weights, f"{why}: {found.describe()}")})
    weights, pin = open_weights(found, sha256=spec.sha256, frontend=frontend)
    left_out = load_weights(model, weights, source=_source(found), head_is_new=spec.head != "keep")
    file = "" if found.url is None else f": {pin.file}, {size_text(pin.size)}"
    new = f"; the head is new, without {listed(left_out, quoted=False)} of the file" if left_out else ""
    return Loaded({"weights": Choice(found.weights, f"{why}{file}{new}")}, asdict(pin))


def _source(found: WeightsFile) -> str:
    return found.weights if found.url is None else f"{found.weights} ({found.file})"


def load_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str, head_is_new: bool) -> list[str]:
    """Load weights whole, but for tensors of the head that have another name or shape where the head is new.

    Files of before PyTorch 0.4.1 have no counts of batches, which a batch norm with a momentum does not read.

    Returns:
        The tensors in ``weights`` that were left out for that.

    Raises:
        ProblemsError: other tensors are missing, unexpected or of another shape, or hold NaN or infinity; the model is
            left as it was.
    """
    weights, own = current_names(weights), model.state_dict()
    report = match_weights(weights, model)
    new = head_names(model, {*weights, *own}) if head_is_new else set()
    shapes = [
        f"{name} ({list(theirs)} in the file, {list(ours)} in the model)"
        for name, theirs, ours in report.wrong_shape
        if name not in new
    ]
    problems = {
        "missing": [name for name in report.missing if name not in new and not name.endswith(".num_batches_tracked")],
        "not in the model": [name for name in report.unexpected if name not in new],
        "of another shape": shapes,
    }
    problems["with NaN or infinity"] = [name for name in report.matched if not is_finite(weights[name])]
    texts = [f"{kind}: {listed(names, limit=5, quoted=False)}" for kind, names in problems.items() if names]
    if texts:
        message = f"{source} does not fit {type(model).__name__}, which was left as it was; {'; '.join(texts)}"
        raise ProblemsError([Problem(message, "model.weights")])
    model.load_state_dict(own | {name: weights[name].to(own[name].dtype) for name in report.matched})
    return [*report.unexpected, *(name for name, _, _ in report.wrong_shape)]


def check_kept_classes(config: Config, class_names: Sequence[str]) -> None:
    """See that the outputs of a head that is kept stand for the classes of the data, as far as names show it.

    Raises:
        ProblemsError: most classes of the data have a name that the weights know, and some have another place there.
    """
    spec = config.model
    if not isinstance(spec, Torchvision) or spec.head != "keep" or published_weights(spec) is None:
        return
    from torchvision.models import get_model_weights

    categories = [_folded(name) for name in get_model_weights(spec.name)[published_weights(spec)].meta["categories"]]
    own = [_folded(name) for name in class_names]
    if len(own) != len(categories) or sum(name in categories for name in own) < len(own) / 2:
        return
    moved = [at for at, name in enumerate(own) if name in categories and categories[at] != name]
    if moved:
        message = (
            "the layer that is kept has its classes in the order of the weights, and the data have another: output "
            f"{moved[0]} stands for {categories[moved[0]]!r} in the weights and for {class_names[moved[0]]!r} in the "
            f"data, as do {len(moved)} in all; number the folders by the weights, or remove head: keep"
        )
        raise ProblemsError([Problem(message, "model.head")])


def _folded(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())

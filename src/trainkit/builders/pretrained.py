"""``model.weights``: the published weights, or those of a file, in a model that was just built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trainkit.checkpoints import load_weights_file, match_weights
from trainkit.config.schema import Config
from trainkit.config.schema.pretrained import Pretrained, weights_file
from trainkit.errors import Problem, ProblemsError
from trainkit.models import current_names, head_names
from trainkit.runtime import Choice
from trainkit.wording import listed


def load_pretrained(config: Config, model: nn.Module, *, stored: Mapping[str, Any] | None = None) -> dict[str, Choice]:
    """Load ``model.weights`` into a model with its first weights.

    Args:
        stored: the checkpoint to resume from, which has all weights: nothing is loaded, and its choice is kept.

    Returns:
        Under ``weights``: which they are, and which tensors were left out; {} for models without published weights.

    Raises:
        ProblemsError: the weights are not there, or do not fit the model, which is left as it was.
    """
    spec = config.model
    if not isinstance(spec, Pretrained):
        return {}
    if stored is not None:
        return {name: Choice(**choice) for name, choice in stored["choices"].items() if name == "weights"}
    if spec.weights == "none":
        return {"weights": Choice("none", "as asked for: the network starts from scratch")}
    path = weights_file(spec)
    if path is None:
        message = f"{spec.weights} would be downloaded, which is not possible yet; name a file, or take none"
        raise ProblemsError([Problem(message, "model.weights")])
    left_out = load_weights(model, load_weights_file(Path(path)), source=path, head_is_new=spec.head != "keep")
    new = f"; the head is new, without {listed(left_out, quoted=False)} of the file" if left_out else ""
    return {"weights": Choice(path, f"as asked for{new}")}


def load_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str, head_is_new: bool) -> list[str]:
    """Load weights whole, but for tensors of the head that have another name or shape where the head is new.

    Files of before PyTorch 0.4.1 have no counts of batches, which a batch norm with a momentum does not read.

    Returns:
        The tensors in ``weights`` that were left out for that.

    Raises:
        ProblemsError: other tensors are missing, unexpected or of another shape; the model is left as it was.
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
    texts = [f"{kind}: {listed(names, limit=5, quoted=False)}" for kind, names in problems.items() if names]
    if texts:
        message = f"{source} does not fit {type(model).__name__}, which was left as it was; {'; '.join(texts)}"
        raise ProblemsError([Problem(message, "model.weights")])
    model.load_state_dict(own | {name: weights[name].to(own[name].dtype) for name in report.matched})
    return [*report.unexpected, *(name for name, _, _ in report.wrong_shape)]

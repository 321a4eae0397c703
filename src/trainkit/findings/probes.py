"""Watch the layers of a model while it runs: their outputs, and ReLU units that no sample activates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from trainkit.models import call_name, config_key

DEAD_SHARE = 0.5
"""Of a layer's units. Small healthy networks have up to 40 % of dead units."""
MIN_UNITS = 8
"""Of fewer units in a ReLU layer, many may be off by chance."""


@dataclass(frozen=True)
class DeadUnits:
    """Units of a ReLU layer whose output is 0 for every sample looked at."""

    name: str
    """The layer's, with the number of a second or later call in a forward pass."""
    key: str
    """The layer's config key."""
    dead: int
    total: int
    seen: int = 0
    """Samples looked at."""

    @property
    def is_mostly_dead(self) -> bool:
        """A layer without a single active unit is, however narrow: its outputs are the same for all samples."""
        return self.dead == self.total or (self.total >= MIN_UNITS and self.dead > DEAD_SHARE * self.total)


def all_but_channels(sample: Tensor) -> list[int]:
    """All but the columns of a table (N, F), or the channels of images (N, C, H, W)."""
    return [dim for dim in range(sample.dim()) if dim != 1]


@contextmanager
def watch_calls(
    model: nn.Module, layers: Mapping[str, nn.Module], look: Callable[[str, int, nn.Module, Tensor], None]
) -> Iterator[None]:
    """Call ``look(name, call, layer, output)`` after each call of these layers while the block runs the model.

    ``call`` counts a layer's calls within one forward pass of the model, from 1; of several outputs the first is shown.
    ``look`` must compute or copy at once: a later layer may write into the output in place.
    """
    calls: Counter[str] = Counter()

    def hook_of(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] += 1
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor):
                look(name, calls[name], layer, first.detach())

        return hook

    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(lambda *_: calls.clear()).remove)
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(hook_of(name)).remove)
        yield


class SilentUnits:
    """The ReLU units of a model that no sample has woken while it was watched.

    A layer that is called several times in a forward pass has other units each time.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.ReLU | nn.ReLU6)}
        self.fired: dict[tuple[str, int, int], Tensor] = {}
        """Which units have been above 0 for any sample, by layer, call and number of units: bool (C,)."""
        self.awake: set[tuple[str, int, int]] = set()
        """Where all have been, so that there is nothing to look for any more."""
        self.seen: Counter[tuple[str, int, int]] = Counter()

    @contextmanager
    def watched(self, *, most: int | None = None) -> Iterator[None]:
        """Watch while the block runs samples through the model.

        Args:
            most: look at the first so many samples only.
        """
        before = self.seen.copy()

        def look(name: str, call: int, layer: nn.Module, output: Tensor) -> None:
            units = (name, call, output.shape[1])
            if most is not None:
                output = output[: max(0, most - (self.seen[units] - before[units]))]
            self.seen[units] += len(output)
            if units in self.awake or not len(output):
                return
            above = (output > 0).sum(dim=all_but_channels(output)) > 0
            self.fired[units] = above | self.fired[units] if units in self.fired else above
            if self.fired[units].all():
                self.awake.add(units)

        with watch_calls(self.model, self.layers, look):
            yield

    def result(self) -> tuple[DeadUnits, ...]:
        order = list(self.layers)
        return tuple(
            DeadUnits(
                call_name(name, call),
                config_key(self.model, name),
                total - int(alive.sum()),
                total,
                self.seen[name, call, total],
            )
            for (name, call, total), alive in sorted(self.fired.items(), key=lambda item: order.index(item[0][0]))
        )


@contextmanager
def count_silent_units(model: nn.Module) -> Iterator[Callable[[], tuple[DeadUnits, ...]]]:
    """Watch the ReLU layers while the block runs samples through the model; it yields a function for the result."""
    units = SilentUnits(model)
    with units.watched():
        yield units.result

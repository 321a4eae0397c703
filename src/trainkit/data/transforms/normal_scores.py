"""The inverse of the normal distribution function out of operations that every exported program can hold."""

# Without postponed annotations: TorchScript reads them, and cannot read text.
import torch
from torch import Tensor, nn


class NormalScores(nn.Module):
    """The standard normal quantiles of probabilities: Wichura's algorithm AS 241 (1988), without its far tail.

    From 1e-11 to 1 - 1e-11 as exact as the dtype; a probability beyond gets the score of these.
    """

    def __init__(self) -> None:
        super().__init__()
        # Polynomials above and below the line, the highest power first: for the center, and for the tail.
        self.center_above = [2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457]
        self.center_above += [13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608]
        self.center_below = [5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867]
        self.center_below += [5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0]
        self.tail_above = [7.7454501427834140764e-4, 2.27238449892691845833e-2, 0.24178072517745061177]
        self.tail_above += [1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055]
        self.tail_above += [4.6303378461565452959, 1.42343711074968357734]
        self.tail_below = [1.05075007164441684324e-9, 5.475938084995344946e-4, 1.51986665636164571966e-2]
        self.tail_below += [0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494]
        self.tail_below += [2.05319162663775882187, 1.0]

    def forward(self, probabilities: Tensor) -> Tensor:
        """float64 or float32 of any shape, to the same."""
        centered = probabilities - 0.5
        near = 0.180625 - centered * centered
        center = centered * self.polynomial(near, self.center_above) / self.polynomial(near, self.center_below)
        smaller = torch.minimum(probabilities, 1 - probabilities).clamp(min=1e-11)
        far = torch.sqrt(-torch.log(smaller)) - 1.6
        tail = torch.sign(centered) * self.polynomial(far, self.tail_above) / self.polynomial(far, self.tail_below)
        return torch.where(centered.abs() <= 0.425, center, tail)

    def polynomial(self, x: Tensor, coefficients: list[float]) -> Tensor:
        result = torch.zeros_like(x)
        for coefficient in coefficients:
            result = result * x + coefficient
        return result

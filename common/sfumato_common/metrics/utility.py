"""Utility of a synthetic set: train a small classifier on it, test on real patients (TSTR, Esteban et al. 2017).

The architecture is fixed, so that every site can refuse weights of another shape. Sites answer only with a
noisy histogram of scores; the area under the ROC curve and its uncertainty are read off that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.metrics.ranks import mann_whitney, percentile_interval
from sfumato_common.types import AnyArray, Arrays, ArraySpec, ByteImages, FloatArray, to_unit_range

Float64 = npt.NDArray[np.float64]
_WIDTHS = (16, 32, 48)
# Images of twice this side or more are averaged down towards it: 600 steps take seven minutes of a core at 256 pixels.
# At 64 pixels a network that real fundi trained reads no lesion of the phantom's (AUC .55; .75 at 128).
_SIDE = 128
_BATCH = 64


class Classifier(nn.Module):
    """Three strided convolutions with GroupNorm, global mean pooling, one linear layer: [N, C, H, W] to [N, K]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in _WIDTHS:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GroupNorm(width // 8, width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, C, H, W] in [-1, 1]."""
        x = functional.avg_pool2d(x, max(1, x.shape[-1] // _SIDE))
        logits: Tensor = self.head(self.features(x).mean(dim=(2, 3)))
        return logits


def classifier_schema(plan: PublicPlan) -> dict[str, ArraySpec]:
    """Exact names and shapes of the classifier's arrays, all float32."""
    state = Classifier(plan.image.channels, len(plan.labels)).state_dict()
    return {name: ArraySpec("float32", tuple(value.shape)) for name, value in state.items()}


def train_classifier(
    plan: PublicPlan, images: ByteImages, labels: npt.NDArray[np.int64], seed: int, steps: int = 600
) -> dict[str, AnyArray]:
    """Train on uint8 images [N, S, S(, 3)] with labels [N]; gives float32 arrays by `classifier_schema`.

    Adam with a one-cycle rate on batches balanced by class, mirrored at random; deterministic in `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(plan.image.channels, len(plan.labels))
    data, targets = torch.from_numpy(to_unit_range(images)), torch.from_numpy(np.asarray(labels, dtype=np.int64))
    weights = 1.0 / torch.bincount(targets, minlength=len(plan.labels)).clamp(min=1).float()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.multinomial(weights[targets], _BATCH, replacement=True, generator=generator)
        batch = data[rows]
        mirrored = torch.rand(_BATCH, generator=generator) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        loss = functional.cross_entropy(model(batch), targets[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return {name: value.numpy() for name, value in model.state_dict().items()}


def score(plan: PublicPlan, arrays: Arrays, images: ByteImages) -> Float64:
    """Scores [N] in [0, 1]: the probability of not being the plan's first class (of class 1 when there are two).

    One image at a time: in batches the last bit of a score depends on how many images come along, and crafted weights
    make that bit decide a bin of somebody else's, so that one patient would move more counts than were charged.
    """
    model = Classifier(plan.image.channels, len(plan.labels))
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    data = torch.from_numpy(to_unit_range(images))
    with torch.no_grad():
        shares = [functional.softmax(model(image).double(), dim=1) for image in torch.split(data, 1)]
    return np.asarray(1.0 - torch.cat(shares)[:, 0].numpy()) if shares else np.zeros(0)


def auc(scores: FloatArray, positive: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> float:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counted half; nan when a class is missing."""
    mask = np.asarray(positive).astype(bool)
    return mann_whitney(scores[mask], scores[~mask])


def auc_from_histogram(histogram: FloatArray) -> float:
    """AUC of all classes but the first against the first, from noisy counts [K, bins] of scores; ties half.

    Negative counts are set to 0. Gives nan when a side is empty: the figure is then withheld by the noise itself.
    """
    counts = np.maximum(np.asarray(histogram, dtype=np.float64), 0.0)
    behind, ahead = counts[0], counts[1:].sum(axis=0)
    if behind.sum() <= 0 or ahead.sum() <= 0:
        return float("nan")
    below = np.cumsum(behind) - behind / 2.0
    return float((ahead * below).sum() / (ahead.sum() * behind.sum()))


def auc_interval(
    histogram: FloatArray, sigma: float, draws: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the AUC from the KNOWN noise: fresh noise of deviation `sigma` added to the published counts.

    Covers the privacy noise and, by Poisson resampling of the counts, the finite number of patients; nan when the
    histogram carries no figure.
    """
    counts = np.maximum(np.asarray(histogram, dtype=np.float64), 0.0)
    samples = [auc_from_histogram(rng.poisson(counts) + rng.normal(0.0, sigma, counts.shape)) for _ in range(draws)]
    if np.isnan(auc_from_histogram(counts)):
        return float("nan"), float("nan")
    return percentile_interval(samples, level)

"""Local style alignment (k-SALSA: Jeon et al. 2022, section 3.3): Gram matrices of patches, each matched to its best.

Style is what features of a shallow convolution do together (Gatys et al. 2016), patch by patch of a 4 x 4 grid; a
patch of a source may find its like anywhere in the synthetic image. The paper's Gram matrices are unnormalised, so
that their size hangs on image and network. Here they are scaled to the paper's 64 channels on patches of 64 x 64 pixels
(its 256 px images), so that a weight means the same at every size and width.

How large the paper's features are is not told. Here their mean square is taken as 0.1: the paper's weights then pull
alike at a group's mean code (see `tests/bench/k_salsa_batch.py`). At 1 the style's gradient is about 50 times the
content's on the phantom, and the content ends farther from the members' than the mean code's.
"""

from __future__ import annotations

from torch import Tensor

GRID = 4  # patches a side; sizes of plans are multiples of it
_PAPER_CHANNELS, _PAPER_PIXELS = 64, 64 * 64
_PAPER_SQUARE = 0.1
_TINY = 1e-12


def patch_grams(features: Tensor) -> Tensor:
    """Gram matrices A = F F^T of the patches of features [N, C, S, S] of mean square 1, flat: [N, 16, C C]."""
    count, channels, size = features.shape[0], features.shape[1], features.shape[2]
    side = size // GRID
    patches = features.reshape(count, channels, GRID, side, GRID, side).permute(0, 2, 4, 1, 3, 5)
    rows = patches.reshape(count, GRID * GRID, channels, side * side)  # [N, 16, C, pixels]
    unit = _PAPER_SQUARE * _PAPER_CHANNELS / channels * _PAPER_PIXELS / side**2
    return (rows @ rows.transpose(2, 3) * unit).flatten(2)


def style_loss(synthetic: Tensor, sources: Tensor, share: Tensor) -> Tensor:
    """The loss [G] of synthetic images' Grams [G, 16, E] against their sources' [G, M, 16, E], weighted [G, M].

    Mean over a source's patches p of ||A_q* - A_p||_F^2, q* the synthetic patch whose Gram has the largest cosine with
    A_p. `share` sums to 1 over a group's members, with 0 for places that pad it to the longest.
    """
    groups, members, patches, width = sources.shape
    products = sources.reshape(groups, members * patches, width) @ synthetic.transpose(1, 2)
    products = products.view(groups, members, patches, patches)  # [G, M, p, q]
    own, theirs = synthetic.square().sum(dim=2), sources.square().sum(dim=3)
    # for the choice of q the length of A_p is of no matter
    best = (products / own.sqrt().clamp(min=_TINY)[:, None, None]).argmax(dim=3, keepdim=True)
    chosen = own[:, None, None].expand_as(products).gather(3, best) - 2.0 * products.gather(3, best)
    return ((chosen[..., 0] + theirs).mean(dim=2) * share).sum(dim=1)

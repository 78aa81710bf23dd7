"""k-SALSA's networks as a plan gives them: content by a public embedding, style by a public network's first layers.

As in the paper (Jeon et al. 2022: MoCo v2 and VGG19). What is not given is the site's own network (`self_supervised`).
Given networks know nothing of the cohort; only two numbers of it stay with them, the features' mean and their mean
square, and neither leaves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.self_supervised import ComparingNet, calibrate, embedding_of
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import DataError
from sfumato_common.study.release import KSalsa


class GivenNet(ComparingNet):
    """Images [N, C, S, S] in [-1, 1] -> local features [N, L, S, S] of mean square 1, embeddings [N, F] about a mean.

    Of `content` and `style` one at least is given; `own` stands in for the other.
    """

    def __init__(self, content: Encoder | None, style: Encoder | None, own: ComparingNet | None) -> None:
        super().__init__()
        self.content, self.style, self.own = content, style, own
        assert own is not None or (content is not None and style is not None), "somebody compares"
        # what is its own is calibrated already: there both stay unused
        centre = torch.zeros(content.length) if content is not None else torch.zeros_like(self._own_net().centre)
        self.register_buffer("centre", centre)
        self.register_buffer("unit", torch.ones(()))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Local features at full resolution, and embeddings."""
        return self._local(x), self(x)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [N, F]."""
        if self.content is None:
            found: Tensor = self._own_net()(x)
            return found
        embedded: Tensor = self.content(x) - self.centre
        return embedded

    def _local(self, x: Tensor) -> Tensor:
        if self.style is None:
            return self._own_net().features(x)[0]
        local: Tensor = self.style(x) * self.unit
        return local

    def _own_net(self) -> ComparingNet:
        assert self.own is not None
        return self.own


def net_of(job: Job[KSalsa]) -> ComparingNet:
    """The network in whose features the item compares images, on the CPU, its weights fixed; made once a release.

    Raises DataError when the cohort has nothing to contrast, where a network of its own is to be trained.
    """
    names = job.item.content_encoder, job.item.style_encoder
    if names == (None, None):
        return embedding_of(job, job.item.embedding_steps)
    settings = names if None not in names else (*names, job.item.embedding_steps)

    def make() -> GivenNet:
        content, style = (None if name is None else job.encoders[name] for name in names)
        own = embedding_of(job, job.item.embedding_steps) if content is None or style is None else None
        images = job.cohort.everything()[0]
        if not len(images):
            raise DataError("the cohort has no image to compare")
        net = GivenNet(content, style, own)
        net.requires_grad_(False)
        calibrate(net, images)
        return net

    return job.release.once(GivenNet, settings, make)

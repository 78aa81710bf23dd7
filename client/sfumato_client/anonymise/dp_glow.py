"""DP-GLOW (arXiv 2212.10688): records' flow latents, clipped each on its own, with Laplace or Gaussian noise, decoded.

The paper's latents have no bound, hence infinite sensitivity; here each is clipped, and epsilon is the total over all
coordinates. The flow is the federated one, whose training under DP-SGD is charged apart. A record's own label goes out
with its image: the plan's charge declares it public. See `latents.py`.
"""

from __future__ import annotations

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.contract import Job, require_private
from sfumato_client.anonymise.latents import codec_of, drawn_places, noised_latents
from sfumato_common.study.release import DpGlow


def dp_glow(job: Job[DpGlow]) -> CandidateSet:
    """`images` images, one a patient at most, each the decoded noisy latent of a record, under the record's label."""
    item, plan = job.item, job.plan
    require_private(plan)
    codec = codec_of(job)
    places = drawn_places(job)
    rows = noised_latents(job, codec, places)
    images = codec.decode(rows, places.labels, job.streams.published)
    return CandidateSet(
        item.method, item.model, "formal", images, places.labels, patients=1, spends=job.recorder.executed
    )

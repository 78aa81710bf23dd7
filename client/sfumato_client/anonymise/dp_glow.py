"""DP-GLOW (arXiv 2212.10688): records' flow latents, clipped each on its own, with Laplace or Gaussian noise, decoded.

The paper's latents have no bound, hence infinite sensitivity; here each is clipped, and epsilon is the total over all
coordinates. The flow is the federated one, whose training under DP-SGD is charged apart. An image's label, under which
it is decoded, is drawn by the released shares, so that no record has a say in it; with `label: public` it is the
record's own, which the plan's charge declares. Under `private: false` the same is 'heuristic', of the noise's own
eps_total, as in the paper, whose flow has no guarantee either. See `latents.py`.
"""

from __future__ import annotations

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.latents import codec_of, drawn_labels, drawn_places, noised_latents
from sfumato_common.study.latents import DpGlow


def dp_glow(job: Job[DpGlow]) -> CandidateSet:
    """`images` images, one a patient at most, each the noisy latent of a record, decoded under the image's label.

    Encoding uses the record's label: whatever the condition, the clip bounds what a latent can show.
    """
    item, plan = job.item, job.plan
    codec = codec_of(job)
    places = drawn_places(job)
    rows = noised_latents(job, codec, places)
    labels = places.labels if item.tells_labels else drawn_labels(job, job.streams.published)
    images = codec.decode(rows, labels, job.streams.published)
    level = plan.guarantee_level(item)
    return CandidateSet(item.method, item.model, level, images, labels, patients=1, spends=job.recorder.executed)

"""CADP (DeCaF 2022, arXiv 2207.14625): noised latents of a conditional flow, and a noised condition.

The published code clips by a norm of the whole batch, counts half the sensitivity, and its noise does not depend on
epsilon up to 8; here every record is clipped on its own and the scale is the L1 diameter over epsilon. The label is
public or told by K-ary randomised response, whose epsilon is added. Encoding uses the true label: whatever the
condition, the clip bounds what a latent can show. See `latents.py`.
"""

from __future__ import annotations

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.latents import codec_of, drawn_labels, drawn_places, noised_latents
from sfumato_common.study.latents import Cadp


def cadp(job: Job[Cadp]) -> CandidateSet:
    """`images` images, one a patient at most, decoded under the released label or one drawn by the released shares.

    An image's label is always the one that it was decoded under.
    """
    item, plan = job.item, job.plan
    codec = codec_of(job)
    places = drawn_places(job)
    rows, labels = noised_latents(job, codec, places), places.labels
    if item.label_epsilon is not None:
        labels = job.recorder.randomised_response(labels, len(plan.labels), item.label_epsilon)
    if item.decode == "resampled":
        labels = drawn_labels(job, job.streams.published)
    images = codec.decode(rows, labels, job.streams.published)
    level = plan.guarantee_level(item)
    return CandidateSet(item.method, item.model, level, images, labels, patients=1, spends=job.recorder.executed)

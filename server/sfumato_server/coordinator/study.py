"""One study on the coordinator's side, inside Flower's ServerApp process: rounds, release, utility, outcome on disk.

Publishing is not done here but in the coordinator's own process, which outlives the run.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_common.accounting.accountant import epsilon, json_epsilon
from sfumato_common.errors import FederationError, NoRoomError, SfumatoError
from sfumato_common.files import write_json
from sfumato_common.imaging import decode_png
from sfumato_common.metrics.utility import auc_from_histogram, auc_interval, train_classifier
from sfumato_common.study.costs import WITHOUT_PRIVACY, study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import Part
from sfumato_common.types import AnyArray, pixel_dtype
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.members import MembersChannel
from sfumato_server.enrol import Registry
from sfumato_server.intake.stored import Stored
from sfumato_server.pool import pool_packages
from sfumato_server.rounds.channel import Channel
from sfumato_server.rounds.checkpoint import Checkpoints
from sfumato_server.rounds.deadlines import GO_ON
from sfumato_server.rounds.encoders import load_encoders
from sfumato_server.rounds.given import load_given
from sfumato_server.rounds.loop import StudyRun
from sfumato_server.rounds.receipts import Receipts
from sfumato_server.rounds.starts import load_starts
from sfumato_server.rounds.strategies.choice import choice_report
from sfumato_server.rounds.utility import ask_utility
from sfumato_server.status.board import StatusBoard
from sfumato_server.status.live import LivePage

log = logging.getLogger(__name__)
_INTERVAL_DRAWS = 400
CLASSIFIER_STEPS = 300


def run_study(
    home: CoordinatorHome,
    channel: Channel,
    *,
    seed: int | None = None,
    classifier_steps: int = CLASSIFIER_STEPS,
    release: bool = True,
) -> str:
    """Run the home's plan over `channel`; returns `completed` or `stopped`, the rest is in `result.json`.

    The coordinator's randomness (generator steps, the classifier) is post-processing; `seed` is for tests and
    simulations, and so is leaving out the release.
    """
    plan = home.plan()
    board = StatusBoard(home.status_file, plan)
    seed = home.seed() if seed is None else seed
    live = LivePage(home.root, plan, board)
    members = MembersChannel(channel, Registry(home.root))
    delivered = partial(_delivered, home, Registry(home.root), Stored(home.root, plan))
    receipts = Receipts(home.receipts_file, plan, delivered)
    kept, limits = Checkpoints(home.checkpoints, plan), home.deadlines()
    run = StudyRun(plan, members, kept, live, seed, limits, receipts, current=home.plan)
    outcome, reason, utility = "completed", "", None
    try:
        run.released.update(load_starts(home.starts, plan))
        run.released.update(load_encoders(home.encoders, plan))
        run.released.update(load_given(home.given, plan))
        run.join()
        run.train()
        if release:
            run.release()
        if release and plan.utility is not None:
            utility = _utility(run, home, classifier_steps)
    except (FederationError, NoRoomError) as error:
        mended = f"when {', '.join(board.wanting)} can answer, " if board.wanting else ""
        outcome, reason = "stopped", f"{error}; {mended}{GO_ON}"
        log.error("study stopped: %s", error)
    except SfumatoError as error:
        outcome, reason = "stopped", str(error)
        log.error("study stopped: %s", error)
    except Exception:
        outcome, reason = "stopped", "internal fault in the coordinator; its log says why"
        log.exception("study stopped by a fault of ours")
    write_json(
        home.result_file,
        {
            "outcome": outcome,
            "reason": reason,
            "plan_hash": plan.study_digest,
            "utility": utility,
            "choice": choice_report(plan, run.choice) if run.choice else None,
            "exchanges": board.stages,
        },
    )
    board.finish(outcome, reason)
    live.write()
    return outcome


def _delivered(home: CoordinatorHome, registry: Registry, stored: Stored, site: str) -> Collection[tuple[Part, int]]:
    """The shards of the release that the intake admitted from `site`, which is in good standing."""
    stored.follow(home.plan())
    return stored.digests(registry.record_in_force(site)) if site in registry.in_force() else ()


def pooled_images(home: Path, plan: Plan) -> tuple[AnyArray, AnyArray]:
    """Images [N, S, S(, 3)] and labels [N] of all that sites sent."""
    pool = pool_packages(home, plan, Registry(home))
    images = np.empty((len(pool.items), *plan.image.shape), pixel_dtype(plan.image.bits))
    labels = np.empty(len(pool.items), np.int64)
    for at, item in enumerate(pool.items):
        images[at], labels[at] = decode_png(item.png), plan.labels.index(item.facts.label)
    return images, labels


def _utility(run: StudyRun, home: CoordinatorHome, steps: int) -> dict[str, Any]:
    """TSTR: train on the pooled synthetic set, ask each site for the noisy score histogram of its holdout patients."""
    plan = run.plan
    assert plan.utility is not None
    images, labels = pooled_images(home.root, plan)
    # from the plan, as the choice's: asked again after a restart, sites answer with what they were charged for before
    classifier = train_classifier(plan, images, labels, seed=int(plan.study_digest[:15], 16) % 2**31, steps=steps)
    histograms = ask_utility(run, classifier)
    counts, sigma = histograms.counts, plan.utility.noise_multiplier
    figures = {site: figure(own, sigma) for site, own in sorted(counts.items()) if site in plan.sites}
    pooled = None
    if counts:
        total = np.sum([np.asarray(item, dtype=np.float64) for item in counts.values()], axis=0)
        pooled = figure(total, histograms.noise_multiplier * len(counts) ** 0.5)
    return {
        "figure": "AUC",
        "what": "classifier trained on the published synthetic images only, tested on holdout real patients (TSTR)",
        "pooled": pooled,
        "sites": figures,
        "withheld": sorted(set(plan.sites) - set(histograms.sites)),
        "noise": (f"Gaussian, noise multiplier {sigma:g}" if plan.private else f"none: {WITHOUT_PRIVACY}")
        + f", on {plan.utility.bins} score bins per class",
        "epsilon_holdout": json_epsilon(epsilon(study_events(plan, "holdout"), plan.privacy.delta)),
        "delta": plan.privacy.delta,
    }


def figure(histogram: AnyArray, sigma: float) -> dict[str, float | None]:
    """AUC of a noisy score histogram [K, bins] with its 95 % interval; None where the noise leaves no figure."""
    low, high = auc_interval(histogram, sigma, _INTERVAL_DRAWS, np.random.default_rng(0))
    values = {"auc": auc_from_histogram(histogram), "low": low, "high": high}
    return {name: None if np.isnan(value) else round(value, 4) for name, value in values.items()}

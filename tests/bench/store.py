"""What it costs that a store is encrypted: opening, images at random places, passes of training, an ingest.

    python tests/bench/store.py [--images 100000] [--files 300] [--rounds 7]

*Encrypted* is the site's store. *Plain* is a memory-mapped array of the same pixels, as stores were before; for the
ingest (`text: allow`) it is the same code, with pixels written as they are. Both in turn, in one process and one
thread of arithmetic, the files in the system's cache; medians of all rounds, of processor time (the ingest has readers'
processes: of time). Random images are drawn over the whole store, a patient at a time (two images) as batches of DP-SGD
take them, and by the thousand.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from PIL import Image
from support.plans import dp_sgd, small_plan

from sfumato_client.dataset import Cohort, SiteStore, StoreTerms
from sfumato_client.dataset.encryption import FileCipher
from sfumato_client.ingest import SiteImage
from sfumato_client.ingest.pool import Pool
from sfumato_client.ingest.sources import PngSource, read_rows
from sfumato_client.training import StageJob, train
from sfumato_client.training.dp.batches import patient_batches
from sfumato_common.crypto.pieces import OVERHEAD
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.terms import ImageForm

LABELS, SPLIT_KEY, STORE_KEY = ["normal", "opacity"], b"k" * 32, bytes(range(32))


def terms(size: int) -> StoreTerms:
    return StoreTerms(ImageForm(size=size), LABELS, SPLIT_KEY, STORE_KEY)


def filled(folder: Path, images: int, size: int) -> tuple[SiteStore, Cohort, Cohort]:
    """A store of random images, its training cohort, and the same cohort over a memory-mapped array."""
    rng = np.random.default_rng(0)

    def rows(start: int):
        for number in range(start, images):
            pixels = rng.integers(0, 256, (size, size)).astype(np.uint8)
            yield [SiteImage(pixels, number % 2, f"p{number // 2 + 1}", None)]

    SiteStore.grow(folder / "store", rows, terms(size))
    store = SiteStore.open(folder / "store", STORE_KEY)
    cohort = store.cohort("train")
    np.save(folder / "plain.npy", np.asarray(cohort.images))
    plain = np.load(folder / "plain.npy", mmap_mode="r")
    return store, cohort, Cohort(plain, cohort.labels, cohort.patient_index, cohort.rows, cohort.views)


def in_turn(rounds: int, *works: Callable[[], object], clock: Callable[[], float] = time.process_time) -> list[float]:
    """The median seconds of each work, of the processor unless `clock` is another: the machine is seldom alone."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, seconds, strict=True):
            began = clock()
            work()
            found.append(clock() - began)
    return [statistics.median(found) for found in seconds]


def access(images: int, rounds: int) -> dict:
    """Opening a large store of 28 px, and images a second from random places."""
    with tempfile.TemporaryDirectory() as folder:
        _, encrypted, plain = filled(Path(folder), images, 28)
        opened = in_turn(rounds, lambda: SiteStore.open(Path(folder) / "store", STORE_KEY).cohort("train"))[0]
        rng = np.random.default_rng(1)
        patients = rng.integers(0, encrypted.patients, 5_000).tolist()
        rows = rng.integers(0, images, (10, 1_000))

        def by_patient(cohort: Cohort) -> Callable[[], object]:
            return lambda: [cohort.images_of(patient) for patient in patients]

        def by_thousand(cohort: Cohort) -> Callable[[], object]:
            return lambda: [np.asarray(cohort.images[some]) for some in rows]

        taken = sum(len(encrypted.images_of(patient)[0]) for patient in patients)
        one, two = in_turn(rounds, by_patient(encrypted), by_patient(plain))
        many, plenty = in_turn(rounds, by_thousand(encrypted), by_thousand(plain))
    found = {"by patient": (taken / one, taken / two), "by the thousand": (rows.size / many, rows.size / plenty)}
    return {"images": images, "open_s": opened, "images_a_second": found}


def plan_of(size: int) -> Plan:
    value = small_plan(
        dp_sgd(kind="gan", local_steps=10), dp_sgd(kind="flow"), released="spectral", sites={"alder": 800}
    )
    return parse(value | {"image": {"size": size}, "federation": {"quorum": 1}}, Plan, "plan")


def passes(size: int, images: int, rounds: int) -> list[dict]:
    """Batches alone, a spectral release, a round of the flow's DP-SGD: seconds of each, encrypted and plain."""
    plan, found = plan_of(size), []
    with tempfile.TemporaryDirectory() as folder:
        _, encrypted, plain = filled(Path(folder), images, size)

        def stage(kind: str, cohort: Cohort) -> Callable[[], object]:
            weights = to_arrays("flow", initial_model("flow", plan)) if kind == "flow" else {}
            # of the base the shares of labels, and a model whose factors are one
            sent = EXCHANGES[kind].sent(plan)
            base = {name: np.zeros(spec.shape) for name, spec in sent.items() if name.startswith("spectral/")}
            base |= {name: np.stack([np.eye(value.shape[-1])] * 2) for name, value in base.items() if value.ndim == 3}
            base |= {"spectral/shares": np.full(2, 0.5), "spectral/tail": np.ones(2)}
            weights = {**base, **weights}
            given = {name: weights[name].astype(np.float32) for name in sent}
            noise = SecureNoise()
            job = StageJob(plan, "alder", plan.stage(kind), 1, given, cohort, noise, NoiseRecorder(noise, ""))
            return lambda: train(job)

        def batches(cohort: Cohort) -> Callable[[], object]:
            flow = plan.stage("flow")
            return lambda: [
                None for _ in patient_batches(cohort, flow, 800, SecretStream(SecureNoise()), (1, size, size))
            ]

        works = {
            "batches of 3 steps of DP-SGD, no network": (batches(encrypted), batches(plain)),
            "spectral release": (stage("spectral", encrypted), stage("spectral", plain)),
            "3 steps of DP-SGD of the flow": (stage("flow", encrypted), stage("flow", plain)),
        }
        if size > 28:  # where the flow alone takes minutes
            works = dict([*works.items()][:2])
        for name, (one, other) in works.items():
            seconds = in_turn(rounds, one, other)
            found.append({"pass": name, "size": size, "encrypted_s": seconds[0], "plain_s": seconds[1]})
    return found


def floor(size: int, images: int, rounds: int) -> dict:
    """Microseconds an image: opened from the store, by bare calls of AES-256-GCM on the same bytes, and copied."""
    with tempfile.TemporaryDirectory() as folder:
        _, encrypted, plain = filled(Path(folder), images, size)
        pieces, key, bound = [], AESGCM(STORE_KEY), bytes(24)
        for row in range(len(encrypted.labels)):
            nonce = os.urandom(12)
            pieces.append((nonce, memoryview(key.encrypt(nonce, np.asarray(plain.images[row]).tobytes(), bound))))
        room = np.empty(size * size, np.uint8).data

        def bare() -> None:
            for nonce, piece in pieces:
                key.decrypt_into(nonce, piece, bound, room)

        seconds = in_turn(rounds, encrypted.everything, bare, lambda: np.array(plain.images))
    opened, called, copied = (1e6 * second / len(pieces) for second in seconds)
    return {"size": size, "store_us": opened, "aes_gcm_us": called, "copy_us": copied}


class Plain(FileCipher):
    """Writes pixels as they are: what an ingest would cost without encryption."""

    def encrypt(self, place: int, data: bytes | memoryview) -> bytes:
        return bytes(data) + bytes(OVERHEAD)


def ingests(files: int, side: int, size: int, rounds: int) -> dict:
    """An ingest of PNG files with and without encryption of pixels and journal."""
    with tempfile.TemporaryDirectory() as folder:
        source = pngs(Path(folder) / "images", files, side)
        numbers = iter(range(1000))

        def ingest() -> None:
            with Pool(source, ImageForm(size=size), LABELS, len(os.sched_getaffinity(0))) as pool:
                rows = lambda start: read_rows(source, ImageForm(size=size), LABELS, pool.run, start)  # noqa: E731
                SiteStore.grow(Path(folder) / f"store-{next(numbers)}", rows, terms(size))

        def without() -> None:
            names = ("sfumato_client.dataset.pixel_file.FileCipher", "sfumato_client.dataset.journal.FileCipher")
            with mock.patch(names[0], Plain), mock.patch(names[1], Plain):
                ingest()

        encrypted, plain = in_turn(rounds, ingest, without, clock=time.perf_counter)
    return {"pass": f"ingest of {files} PNG of {side} px", "size": size, "encrypted_s": encrypted, "plain_s": plain}


def pngs(folder: Path, files: int, side: int) -> PngSource:
    folder.mkdir()
    rows = ["file,patient_id,label"]
    for number in range(files):
        pixels = np.random.default_rng(number).integers(0, 256, (side // 16, side // 16)).astype(np.uint8)
        Image.fromarray(pixels).resize((side, side)).save(folder / f"{number:05d}.png")
        rows.append(f"{number:05d}.png,p{number + 1},{LABELS[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return PngSource(kind="png", folder=folder, labels=folder / "labels.csv", text="allow")


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs that a store is encrypted")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict = {"load": os.getloadavg()[0], "access": access(given.images, given.rounds)}
    opened = f"a store of {given.images} images of 28 px opens in {found['access']['open_s']:.3f} s"
    print(f"load {found['load']:.1f}; {opened}")
    print("images a second | encrypted | plain")
    for name, (encrypted, plain) in found["access"]["images_a_second"].items():
        print(f"{name} | {encrypted:,.0f} | {plain:,.0f}", flush=True)
    found["floor"] = [floor(size, images, given.rounds) for size, images in ((28, 20_000), (128, 2000), (512, 200))]
    print("microseconds an image, all in turn | px | store | AES-256-GCM alone | copied | GB/s of AES")
    for row in found["floor"]:
        speed = row["size"] ** 2 / row["aes_gcm_us"] / 1000
        times = " | ".join(f"{row[name]:.2f}" for name in ("store_us", "aes_gcm_us", "copy_us"))
        print(f"| {row['size']} | {times} | {speed:.1f}", flush=True)
    print("what | px | encrypted | plain | encrypted / plain")
    found["costs"] = []
    for size, images in ((28, 2000), (128, 1600)):
        found["costs"] += passes(size, images, given.rounds)
    found["costs"].append(ingests(given.files, 512, 128, given.rounds))
    for row in found["costs"]:
        ratio = row["encrypted_s"] / row["plain_s"]
        print(f"{row['pass']} | {row['size']} | {row['encrypted_s']:.3f} s | {row['plain_s']:.3f} s | {ratio:.2f}")
    out = Path("bench-out") / "store.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

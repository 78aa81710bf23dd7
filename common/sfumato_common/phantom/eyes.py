"""Phantom patients' fundus photographs: one to four pictures, the two eyes in turn, with follow-up of their disease."""

from __future__ import annotations

import numpy as np

from sfumato_common.phantom.anatomy import MAX_GRADE
from sfumato_common.phantom.cameras import Camera
from sfumato_common.phantom.fundus import add_lesions, background, eye_canvas, photograph
from sfumato_common.phantom.person import PhantomPatient, follow_up, person_seed
from sfumato_common.phantom.retina import sample_gaze, sample_lesions, sample_retina


def draw_eyes(seed: int, site: str, number: int, camera: Camera) -> PhantomPatient:
    """Draw the eyes of patient `number` of `site` with `camera`; deterministic in all four.

    Pictures alternate between the eyes, so that the third and fourth are a second visit. A patient has one grade a
    visit; each eye has lesions of its own.
    """
    person, course, texture, noise = (np.random.default_rng(c) for c in person_seed(seed, site, number).spawn(4))
    retina = sample_retina(person)
    worst = int(course.choice(MAX_GRADE + 1, p=(0.5, 0.17, 0.18, 0.15)))
    lesions = [sample_lesions(course, eye) for eye in retina.eyes]
    count = int(course.choice((1, 2, 3, 4), p=(0.40, 0.30, 0.20, 0.10)))
    first = int(course.integers(2))
    canvas = eye_canvas(camera.density)
    seen = {first, 1 - first} if count > 1 else {first}
    # both eyes are drawn from streams of their own, so that one does not depend on whether the other is seen
    streams = texture.spawn(2)
    still = {side: background(retina, retina.eyes[side], streams[side], canvas) for side in sorted(seen)}
    images, grades, views, grade = [], [], [], worst
    for index in range(count):
        side = (first + index) % 2
        if index % 2 == 0:
            grade = follow_up(worst, index // 2, course)
        gaze, amount = sample_gaze(course), float(course.uniform(0.85, 1.15))
        shown = add_lesions(still[side], lesions[side][grade], amount, canvas) if grade else still[side]
        images.append(photograph(retina.eyes[side], shown, gaze, retina, camera, noise))
        grades.append(grade)
        views.append(retina.eyes[side].laterality)
    patient_id = f"{site}-P{number:04d}"
    return PhantomPatient(patient_id, f"PHANTOM^P{number:04d}", retina, tuple(images), tuple(grades), tuple(views))

"""Whole studies with a StyleGAN2: under privacy and without, sampled and walked in."""

import copy

import pytest
from support.federations import make_federation
from support.plans import dp_sgd
from support.studies import PLAN, POLICY

from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry
from sfumato_server.pool import pool_packages

SMALL = {"rounds": 2, "channel_base": 128, "channel_max": 8, "generator_steps": 2, "fakes": 8}


def values(private: bool) -> dict:
    """The tiny study with one trained model; its images come from a prior, from groups' mean codes and by k-SALSA."""
    plan = copy.deepcopy(PLAN)
    plan["private"], plan["image"] = private, {"size": 16, "channels": 1}
    plan["sites"] = {site: plan["sites"][site] for site in ("alder", "birch")}
    stage = dp_sgd(kind="stylegan2", sites_train="discriminator" if private else "both", **SMALL)
    plan["stages"] = [{**plan["stages"][0], "bandwidth": 4}, stage]
    if not private:
        for one in plan["stages"]:
            one["noise_multiplier"] = 0.001
        stage["augmentation"] = "adaptive"
    del plan["utility"]
    grouped = {"model": "stylegan2", "k": 3, "images": 2, "refinement_steps": 3, "encoder_steps": 1}
    plan["release"] = [
        {"model": "stylegan2", "images": 6},
        {"method": "k-same", **grouped},
        {"method": "k-salsa", "steps": 2, "embedding_steps": 2, **grouped},
    ]
    return plan


@pytest.mark.parametrize("private", [True, False], ids=["private", "not private"])
def test_a_study_with_a_stylegan2_is_trained_walked_in_and_released(tmp_path, private):
    policy = {**copy.deepcopy(POLICY), "allowed_stages": ["spectral", "stylegan2"]}
    policy["release"] |= {"allowed_methods": ["dp-sampling", "k-same", "k-salsa"], "smallest_group": 3}
    policy["release"]["gate"]["identity_share_limit"] = 1.0
    policy |= {} if private else {"nonprivate_studies": ["tiny"], "noise": "secure"}
    federation = make_federation(tmp_path, values(private), policy)
    assert run_study(federation.coordinator, federation, seed=1, classifier_steps=5) == "completed"
    pool = pool_packages(federation.coordinator.root, federation.plan, Registry(federation.coordinator.root))
    methods = {(item.facts.method, item.facts.model) for item in pool.items}
    assert methods == {(method, "stylegan2") for method in ("dp-sampling", "k-same", "k-salsa")}

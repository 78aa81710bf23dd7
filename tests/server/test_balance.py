"""Shares of labels as the plan asks: a public draw among signed images, which anybody draws again."""

from collections import Counter

import pytest

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.study.balance import Balance
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset


@pytest.fixture
def sent(consortium, make_plan):
    """Three packages of six images under a plan that asks for one abnormal image in four."""
    from dataclasses import replace

    plan = make_plan(balance={"abnormal": 0.25, "normal": 0.75})
    own = replace(consortium, plan=plan)
    for site in plan.sites:
        path = package_path(own.home, site, "formal")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(own.package(site))
    return own


def test_the_scarcest_label_stays_whole_and_the_others_are_drawn(sent, tmp_path):
    pool = pool_packages(sent.home, sent.plan, sent.registry)
    assert Counter(item.facts.label for item in pool.items) == {"normal": 9, "abnormal": 3}
    again = pool_packages(sent.home, sent.plan, sent.registry)
    assert [item.facts for item in again.items] == [item.facts for item in pool.items]
    publish(pool, sent.plan, tmp_path, sent.authority, {"exchanges": []}, None)
    assert verify_dataset(tmp_path / "published", None).images == 12


def test_a_set_that_holds_another_draw_does_not_verify(sent, tmp_path, monkeypatch):
    from sfumato_server.pool import pooling

    class Whole(Balance):
        def stays(self, site, name, label):
            return label == "normal" or not super().stays(site, name, label)

    monkeypatch.setattr(pooling, "Balance", Whole)
    pool = pool_packages(sent.home, sent.plan, sent.registry)
    publish(pool, sent.plan, tmp_path, sent.authority, {"exchanges": []}, None)
    with pytest.raises(VerificationError, match="other images than its plan draws"):
        verify_dataset(tmp_path / "published", None)


def test_without_balance_all_stay_and_the_digest_is_as_before(make_plan):
    plan = make_plan()
    assert "balance" not in plan.model_dump(mode="json")
    images = [("east", f"{at:032x}", "normal") for at in range(50)]
    assert all(Balance.of(plan, images).stays(*image) for image in images)


def test_the_draw_has_the_shares_for_any_counts_and_takes_no_image_by_its_place(make_plan):
    plan = make_plan(balance={"abnormal": 0.5, "normal": 0.5})
    images = [("east", f"{at:032x}", "normal") for at in range(4000)]
    images += [("north", f"{at:032x}", "abnormal") for at in range(1000)]
    balance = Balance.of(plan, images)
    stay = [image for image in images if balance.stays(*image)]
    assert Counter(label for _, _, label in stay) == {"normal": 1000, "abnormal": 1000}
    early = sum(int(name, 16) < 2000 for _, name, label in stay if label == "normal")
    assert abs(early - 500) < 5 * 20  # five standard deviations of an even draw


@pytest.mark.parametrize(
    ("balance", "words"),
    [
        ({"normal": 1.0}, "every label a share"),
        ({"normal": 0.7, "abnormal": 0.7}, "add up to 1.4"),
        ({"normal": 1.0, "abnormal": 0.0}, "balance"),
        ({"normal": 0.5, "opacity": 0.5}, "every label a share"),
    ],
)
def test_shares_that_mean_nothing_are_refused(make_plan, balance, words):
    with pytest.raises(ConfigError, match=words):
        make_plan(balance=balance)


def test_a_label_without_an_image_is_told(make_plan):
    plan = make_plan(balance={"abnormal": 0.5, "normal": 0.5})
    with pytest.raises(ConfigError, match="no image has label 'abnormal'"):
        Balance.of(plan, [("east", "0" * 32, "normal")])

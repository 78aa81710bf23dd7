"""An Opacus loop under the ledger: charged before a record is read, noised by the recorder, refused where unknown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager
from support.opacus_training import PATIENTS, prepared, train

from sfumato import ledger
from sfumato.ledger import opacus
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import SampledGaussian
from sfumato_common.errors import BudgetExceeded, ConfigError, DataError, EgressRefused, PolicyRefusal
from sfumato_common.mechanisms.noise import TestNoise


@pytest.fixture
def path(tmp_path):
    ledger.create_ledger(tmp_path / "book.sqlite", site="alder", epsilon=3.0, delta=1e-5)
    return tmp_path / "book.sqlite"


def opened(path, tool=opacus.TOOL, **more):
    return ledger.open_run(path, study="triage", purpose="a test", patients=PATIENTS, tool=tool, **more)


def charged(run, optimizer, loader, **more):
    given = {"records": PATIENTS, "nominal_patients": 200, "sampling_rate": 0.1, "steps": 20, **more}
    return opacus.charged_training(run, optimizer, loader, **given)


def test_a_training_is_charged_by_epochs_learns_and_is_certified(path):
    _, model, optimizer, loader = prepared()
    x, y = loader.dataset.tensors
    with opened(path) as run:
        optimizer, loader = charged(run, optimizer, loader)
        train(model, optimizer, loader, epochs=2)
        assert [entry.event.steps for entry in run.charges()] == [10, 10]
        stated = run.certificate()
    assert stated.open == 0
    assert stated.epsilon.train.add_remove >= epsilon([SampledGaussian(1.5, 0.1, 20)], 1e-5)
    assert (model(x).argmax(dim=1) == y).float().mean() > 0.7
    assert any("Poisson" in line for line in stated.statement.rests_on)


def test_the_charge_is_on_disk_before_a_record_is_read(path):
    _, _, optimizer, loader = prepared()
    with opened(path) as run:
        seen = []

        class Watched(torch.utils.data.Dataset):
            def __len__(self):
                return len(PATIENTS)

            def __getitem__(self, at):
                seen.append(sum(entry.event.steps for entry in run.charges()))
                return loader.dataset[at]

        watched = torch.utils.data.DataLoader(Watched(), batch_size=20)
        _, charged_loader = charged(run, optimizer, watched)
        next(iter(charged_loader))
    assert set(seen) == {10}


def test_a_training_that_does_not_fit_is_refused_before_its_first_step(path):
    _, model, optimizer, loader = prepared()
    with opened(path) as run:
        optimizer, loader = charged(run, optimizer, loader, steps=4000)
        before = [one.detach().clone() for one in model.parameters()]
        with pytest.raises(BudgetExceeded, match="nothing was touched"):
            train(model, optimizer, loader)
        assert not run.charges()
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_no_step_beyond_those_that_were_planned_and_none_from_another_loader(path):
    _, model, optimizer, loader = prepared()
    with opened(path) as run:
        own, paid = charged(run, optimizer, loader, steps=3)
        with pytest.raises(EgressRefused, match="without a charge"):
            train(model, own, loader)
        with pytest.raises(EgressRefused, match="all 3 steps"):
            train(model, own, paid)
        assert run.certificate().open == 0


def test_a_part_of_a_block_stays_charged(path):
    _, model, optimizer, loader = prepared()
    with opened(path) as run:
        own, paid = charged(run, optimizer, loader)
        for number, (x, y) in enumerate(paid):
            if number == 4:
                break
            own.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            own.step()
        stated = run.certificate()
    assert stated.open == 1
    assert stated.mechanisms["train"][0]["steps"] == 10


@pytest.mark.parametrize("workers", [0, 2])
def test_physical_batches_and_workers_that_read_ahead_count_as_single_steps(path, workers):
    _, model, optimizer, loader = prepared(num_workers=workers)
    with opened(path) as run:
        own, paid = charged(run, optimizer, loader, steps=10, block=4)
        with BatchMemoryManager(data_loader=paid, max_physical_batch_size=7, optimizer=own) as small:
            train(model, own, small)
        assert [entry.event.steps for entry in run.charges()] == [4, 4, 2]
        assert run.certificate().open == 0


def gradient_with(rows, clip=1.0, noise=1e-9):
    """The noised gradient of one step on `rows` [N, 6], of a linear network whose loss is its output."""
    net = torch.nn.Linear(6, 1, bias=False)
    data = torch.utils.data.TensorDataset(rows)
    made = PrivacyEngine().make_private(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.0),
        data_loader=torch.utils.data.DataLoader(data, batch_size=len(rows)),
        noise_multiplier=noise,
        max_grad_norm=clip,
        loss_reduction="sum",
    )
    return made


class _Paid:
    """Stands for a charge whose noise is none, so that the clipped sum itself is seen."""

    noise_multiplier, clipping_norm = 1e-9, 1.0

    def noised(self, total):
        return total.numpy()

    def stepped(self, parameters):
        return None


def test_one_patient_moves_the_sum_by_at_most_the_clipping_norm():
    rows = torch.randn(30, 6) * 5
    rows[3, 2], rows[4, 1] = torch.nan, torch.inf  # an image that is no number moves nothing
    sums = []
    for kept in (rows, rows[:-1]):
        model, optimizer, _ = gradient_with(kept)
        own = opacus.ChargedOptimizer(optimizer, _Paid(), 1.0)
        model(kept).sum().backward()
        own.step()
        sums.append(next(iter(model.parameters())).grad.clone())
    expected = torch.nn.functional.normalize(rows[[at for at in range(30) if at not in (3, 4)]].double()).sum(dim=0)
    np.testing.assert_allclose(sums[0].numpy()[0], expected.numpy(), atol=1e-5)
    assert float((sums[0] - sums[1]).norm()) <= 1.0 + 1e-6


def test_noise_has_the_scale_that_was_charged(path):
    _, model, optimizer, loader = prepared(noise_multiplier=2.5)
    with opened(path) as run:
        own, paid = charged(run, optimizer, loader, steps=10)
        found = []
        for x, _ in paid:
            own.zero_grad()
            (model(x) * 0).sum().backward()
            own.step()
            found += [one.grad.flatten() * own.expected_batch_size for one in model.parameters()]
    noise = torch.cat(found)
    assert float(noise.std()) == pytest.approx(2.5, rel=0.15)
    assert own.expected_batch_size == 20.0


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"records": PATIENTS[:-1]}, DataError, "lengths differ"),
        ({"records": [*PATIENTS[:-1], PATIENTS[0]]}, DataError, "several records"),
        ({"sampling_rate": 1.5}, ConfigError, "between 0 and 1"),
        ({"steps": 0}, ConfigError, "1 or more"),
    ],
)
def test_what_the_claim_would_not_hold_for_is_refused(path, more, error, words):
    _, _, optimizer, loader = prepared()
    with opened(path) as run, pytest.raises(error, match=words):
        charged(run, optimizer, loader, **more)


def test_other_optimizers_and_other_statements_are_refused(path):
    _, _, optimizer, loader = prepared()

    class Adaptive(DPOptimizer):
        pass

    optimizer.__class__ = Adaptive
    with opened(path) as run, pytest.raises(PolicyRefusal, match="is a Adaptive"):
        charged(run, optimizer, loader)
    with opened(path, tool=ledger.BLOCKS) as run, pytest.raises(PolicyRefusal, match=r"opacus\.TOOL"):
        charged(run, optimizer, loader)


def test_noise_that_changes_after_the_charge_stops_the_training(path):
    _, model, optimizer, loader = prepared()
    with opened(path) as run:
        own, paid = charged(run, optimizer, loader)
        own.noise_multiplier = 0.1
        with pytest.raises(EgressRefused, match="changed since the charge"):
            train(model, own, paid)


def test_opacus_own_noise_is_refused_in_production_without_secure_mode(path):
    engine, *_ = prepared()
    terms = {"noise_multiplier": 1.5, "sampling_rate": 0.1, "steps": 10}
    with (
        opened(path, opacus.OWN_NOISE) as run,
        pytest.raises(PolicyRefusal, match="secure_mode is off"),
        opacus.stated_training(run, engine, **terms),
    ):
        pytest.fail("the body ran")


def stated(run, epochs):
    engine, model, optimizer, loader = prepared()
    terms = {"noise_multiplier": 1.5, "sampling_rate": 0.1, "steps": 10}
    with opacus.stated_training(run, engine, **terms) as charge:
        train(model, optimizer, loader, epochs)
        charge.keep(b"weights")


def test_without_secure_mode_the_certificate_is_void_and_says_so(path):
    with opened(path, opacus.OWN_NOISE, noise=TestNoise(1)) as run:
        with pytest.warns(UserWarning, match="TEST NOISE"):
            stated(run, epochs=1)
        assert run.certificate().covers.startswith("TEST NOISE")


@pytest.mark.filterwarnings("ignore:Opacus's secure_mode")
def test_more_steps_than_were_charged_leave_the_charge_open(path):
    with opened(path, opacus.OWN_NOISE, noise=TestNoise(1)) as run:
        with pytest.raises(EgressRefused, match="counted 20 steps"):
            stated(run, epochs=2)
        assert run.certificate().open == 1

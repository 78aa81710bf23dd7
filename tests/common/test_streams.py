"""Secret and published streams: exact distributions, keys apart, and nothing of one in the other."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from sfumato_common.mechanisms.draws import Draws, TorchDraws
from sfumato_common.mechanisms.noise import KeyStream, SecureNoise, TestNoise
from sfumato_common.mechanisms.streams import PublishedStream, SecretStream, Streams, working_generator

SURE = 1e-4  # seeds are fixed: a test that passes once passes always


class Written:
    """A noise source whose streams give the words that were written down for them."""

    def __init__(self, *words: int) -> None:
        self._words = list(words)

    def apart(self, purpose):
        return self

    def words(self, count):
        taken, self._words = self._words[:count], self._words[count:]
        assert len(taken) == count, "more words were asked for than a draw needs"
        return np.array(taken, dtype=np.uint64)


def secret(seed: int = 0) -> SecretStream:
    return SecretStream(TestNoise(seed))


def fits(counts, expected) -> bool:
    return len(counts) == 1 or stats.chisquare(counts, expected).pvalue > SURE


def test_a_word_that_would_favour_small_results_is_drawn_again():
    # 2^64 = 1 modulo 3 and 5 modulo 11: one word too many for three results, five for eleven
    drawn = SecretStream(Written(0, 4, 2**64 - 1, 1, 3, 5)).below([3, 11, 1])
    assert drawn.tolist() == [1, 5 % 11, 0]
    assert SecretStream(Written(7)).below([2**63]).tolist() == [7]
    # 2^64 - 2^40 results: every 2^24th word is drawn again
    assert SecretStream(Written(2**40 - 1, 2**40)).below([2**64 - 2**40]).tolist() == [2**40]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_every_choice_is_as_likely_as_any_other(count):
    drawn = secret(count).below(np.full(200 * count, count))
    counts = np.bincount(drawn, minlength=count)
    assert len(counts) == count and fits(counts, np.full(count, 200.0))
    assert 0 <= secret().choice(count) < count


def test_every_order_is_as_likely_as_any_other():
    source = secret(1)
    found = Counter(tuple(source.permutation(4).tolist()) for _ in range(24 * 200))
    assert fits([found[order] for order in itertools.permutations(range(4))], np.full(24, 200.0))
    for count in (0, 1, 500):
        assert np.array_equal(np.sort(source.permutation(count)), np.arange(count))


@pytest.mark.parametrize("rate", [0.1, 0.37])
def test_poisson_samples_are_opacus_samples_and_the_binomial_law(rate):
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler

    patients, steps = 60, 4000
    own = secret(3)
    reference = UniformWithReplacementSampler(
        num_samples=patients, sample_rate=rate, generator=torch.Generator().manual_seed(3), steps=steps
    )
    ours = [own.poisson_sample(patients, rate) for _ in range(steps)]
    for samples in (ours, [np.array(sample, dtype=np.int64) for sample in reference]):
        assert len(samples) == steps and all((np.diff(sample) > 0).all() for sample in samples)
        sizes = np.bincount([len(sample) for sample in samples], minlength=patients + 1)
        law = steps * stats.binom.pmf(np.arange(patients + 1), patients, rate)
        often = law > 5
        assert fits([*sizes[often], sizes[~often].sum()], [*law[often], law[~often].sum()])
        joined = np.bincount(np.concatenate(samples), minlength=patients)
        z = (joined - steps * rate) / np.sqrt(steps * rate * (1 - rate))
        assert SURE < stats.chi2.cdf((z**2).sum(), patients) < 1 - SURE
        together = sum(len({0, 1} & set(sample.tolist())) == 2 for sample in samples)
        assert stats.binomtest(together, steps, rate**2).pvalue > SURE


def test_a_sampling_rate_is_rounded_down_and_never_up():
    edge = int(0.3 * 2.0**64)  # 0.3 as a float, which 2^64 makes a whole number
    assert SecretStream(Written(edge - 1, edge)).poisson_sample(2, 0.3).tolist() == [0]
    assert SecretStream(Written(0, 1)).poisson_sample(2, 1.5 * 2.0**-64).tolist() == [0]
    assert SecretStream(Written(0)).poisson_sample(1, 0.9 * 2.0**-64).tolist() == []
    assert SecretStream(Written(2**64 - 2, 2**64 - 1)).poisson_sample(2, 1.0).tolist() == [0]
    assert secret().poisson_sample(0, 0.5).tolist() == []


@pytest.mark.parametrize("source", [SecretStream(TestNoise(1)), PublishedStream(TestNoise(1))])
def test_categories_come_by_their_weights_and_one_without_weight_never(source):
    weights = torch.tensor([0.0, 3.0, 1.0, 0.0, 4.0, 0.0])
    drawn = source.categorical(weights, 8000)
    assert drawn.dtype == torch.int64
    counts = np.bincount(drawn.numpy(), minlength=6)
    assert counts[[0, 3, 5]].sum() == 0 and fits(counts[[1, 2, 4]], [3000.0, 1000.0, 4000.0])


def test_a_uniform_at_the_very_top_draws_the_last_category_that_has_weight():
    class Top(Written):
        def uniform(self, shape):
            return np.full(shape, 1.0 - 2.0**-53)

    drawn = SecretStream(Top()).categorical(torch.full((7,), 0.1).double(), 2)
    assert drawn.tolist() == [6, 6]
    assert SecretStream(Top()).categorical(torch.tensor([0.1] * 7 + [0.0]).double(), 1).tolist() == [6]


def test_what_spreads_records_is_uniform_or_normal():
    source = secret(2)
    grey = source.uniform((40, 50, 5))
    assert grey.shape == (40, 50, 5) and grey.dtype == torch.float32
    assert torch.equal(grey * 2**24, (grey * 2**24).round()) and grey.min() >= 0 and grey.max() < 1
    assert stats.kstest(grey.flatten().numpy(), "uniform").pvalue > SURE
    assert secret().uniform((3,)).shape == (3,) and secret().uniform((0, 2)).shape == (0, 2)
    cells, levels = source.uniform64((5000,)), source.normal64((5000, 2))
    assert cells.dtype == levels.dtype == torch.float64
    assert stats.kstest(cells.numpy(), "uniform").pvalue > SURE
    assert stats.kstest(levels.flatten().numpy(), "norm").pvalue > SURE


def test_what_is_published_is_normal_or_uniform_over_levels():
    source = PublishedStream(TestNoise(4))
    drawn = source.normal((4, 1, 16, 16))
    assert drawn.shape == (4, 1, 16, 16) and drawn.dtype == torch.float32
    assert stats.kstest(source.normal((9000,)).numpy(), "norm").pvalue > SURE
    levels = source.integers(5, 5000)
    assert levels.dtype == torch.int64 and fits(np.bincount(levels.numpy(), minlength=5), np.full(5, 1000.0))


def test_torch_draws_are_torchs_own_numbers():
    draws, twin = TorchDraws(torch.Generator().manual_seed(9)), torch.Generator().manual_seed(9)
    shares = torch.tensor([0.2, 0.5, 0.3])
    for _ in range(2):
        assert torch.equal(draws.normal((3, 1, 4, 4)), torch.randn(3, 1, 4, 4, generator=twin))
        assert torch.equal(draws.uniform((5, 2)), torch.rand((5, 2), generator=twin))
        assert torch.equal(draws.categorical(shares, 7), torch.multinomial(shares, 7, replacement=True, generator=twin))
        assert torch.equal(draws.integers(6, 8), torch.randint(6, (8,), generator=twin))


def test_no_sampler_takes_the_secret_stream_and_the_published_one_decides_about_nobody():
    assert issubclass(PublishedStream, Draws) and issubclass(TorchDraws, Draws)
    assert not issubclass(SecretStream, Draws)
    public = {name for name in dir(PublishedStream) if not name.startswith("_")}
    assert public == {"normal", "categorical", "integers", "uniform64"}
    assert {"below", "choice", "permutation", "poisson_sample", "uniform"} <= set(dir(SecretStream))


def drawn_from(streams: Streams) -> list[bytes]:
    """The first words of every stream."""
    working = torch.randint(2**31, (4,), generator=streams.working)
    return [
        streams.secret._stream.words(4).tobytes(),
        streams.published._stream.words(4).tobytes(),
        working.numpy().tobytes(),
    ]


def test_test_noise_gives_the_same_streams_again_and_others_each_time_it_is_asked():
    runs = []
    for _ in range(2):
        noise = TestNoise(5)
        runs.append([*drawn_from(Streams.of(noise)), *drawn_from(Streams.of(noise))])
    assert runs[0] == runs[1] and len(set(runs[0])) == 6
    assert not set(runs[0]) & set(drawn_from(Streams.of(TestNoise(6))))
    plain, parted = TestNoise(5), TestNoise(5)
    Streams.of(parted)
    assert np.array_equal(plain.normal((4,), 1.0), parted.normal((4,), 1.0)), "a source's own noise stays as it is"


@pytest.mark.parametrize("kind", ["secure", "test"])
def test_no_two_streams_of_a_site_share_a_key(kind, monkeypatch):
    keys: list[bytes] = []
    rekey = KeyStream._rekey
    monkeypatch.setattr(KeyStream, "_rekey", lambda self, key: (keys.append(key), rekey(self, key))[1])
    source = SecureNoise() if kind == "secure" else TestNoise(5)
    held = [Streams.of(source) for _ in range(2)]
    assert len(keys) == len(set(keys)) == 1 + 2 * 3 and {len(key) for key in keys} == {32}
    for streams in held:
        drawn_from(streams)
    assert len(keys) == 7, "a key is made once"


def _first_words(noise, streams, results):
    results.put([noise.words(4).tobytes(), *drawn_from(streams)[:2], *drawn_from(Streams.of(noise))])


def test_forked_children_share_no_stream_with_each_other_or_their_parent():
    fork = multiprocessing.get_context("fork")
    noise, results = SecureNoise(), fork.Queue()
    streams = Streams.of(noise)
    children = [fork.Process(target=_first_words, args=(noise, streams, results)) for _ in range(2)]
    for child in children:
        child.start()
    _first_words(noise, streams, results)
    drawn = [word for _ in range(3) for word in results.get(timeout=20)]
    for child in children:
        child.join(20)
        assert child.exitcode == 0
    assert len(drawn) == len(set(drawn)) == 3 * 6


def test_a_forked_child_keeps_its_secret_and_published_streams_apart_under_test_noise_too():
    fork = multiprocessing.get_context("fork")
    noise, results = TestNoise(1), fork.Queue()
    child = fork.Process(target=_first_words, args=(noise, Streams.of(noise), results))
    child.start()
    drawn = results.get(timeout=20)
    child.join(20)
    assert len(set(drawn)) == len(drawn) == 6


def test_a_working_generators_whole_state_has_its_own_key():
    one, two = (working_generator(TestNoise(3)) for _ in range(2))
    assert torch.equal(torch.rand(2000, generator=one), torch.rand(2000, generator=two))
    drawn = torch.rand(200_000, generator=working_generator(SecureNoise()))
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.005)
    states = [working_generator(SecureNoise()).get_state()[24 : 24 + 8 * 624] for _ in range(2)]
    words = [state.view(torch.int64) for state in states]
    assert (words[0] == words[1]).sum() == 0
    for part in words:
        assert part.min() >= 0 and part.max() < 2**32
        assert len(part.unique()) > 600

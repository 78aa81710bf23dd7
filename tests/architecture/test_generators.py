"""No draw from a generator that is unseeded, global, or equal to another one: in the source, and while a study runs.

Nor one state that reaches both a secret and an output: a site draws both from key streams, and elsewhere only what is
neither.
"""

from __future__ import annotations

import ast
import multiprocessing
from functools import cache
from pathlib import Path

import pytest

from sfumato_client.site.noise import noise_of
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import load_yaml
from sfumato_common.study.load import load_plan
from sfumato_common.study.policy import Policy

ROOT = Path(__file__).resolve().parents[2]

_NORMAL = "torch.nn.init.normal_"
# (file, what is drawn or seeded): why it may be
ALLOWED = {
    ("common/sfumato_common/mechanisms/streams.py", "constant seed"): "its whole state is replaced in the next lines",
    (
        "common/sfumato_common/generators/weights.py",
        "torch.manual_seed",
    ): "public first weights, in a fork of the state",
    **{
        (f"common/sfumato_common/generators/stylegan2/{name}.py", word): "public first weights, in weights.py's fork"
        for name, word in (("layers", "torch.randn"), ("generator", "torch.randn"), ("discriminator", _NORMAL))
    },
    ("common/sfumato_common/metrics/utility.py", "torch.manual_seed"): "a classifier of synthetic images, in a fork",
    ("common/sfumato_common/metrics/network.py", "torch.manual_seed"): "a bench's network, in a fork of the state",
    **{
        ("common/sfumato_common/metrics/judges.py", f"torch.{word}"): "networks as a stranger trains them, in a fork"
        for word in ("rand", "randn", "manual_seed", "randint", "nn.init.kaiming_normal_", "nn.Dropout")
    },
    ("common/sfumato_common/generators/embedding/fit.py", "unseeded torch.Generator"): "given another's state at once",
    ("common/sfumato_common/codec/folder.py", "constant seed"): "weights that are replaced in the next lines",
    ("client/sfumato_client/cli/style_net.py", "constant seed"): "views of images of one's choice; hides nothing",
    (
        "client/sfumato_client/flower/worker.py",
        "numpy.random.seed",
    ): "from the system: no fork repeats another",
    (
        "common/sfumato_common/generators/flow/matching.py",
        "constant seed",
    ): "of a released flow; draws no image",
    (
        "common/sfumato_common/generators/spectral/denoise.py",
        "constant seed",
    ): "known noise, about nobody",
    (
        "common/sfumato_common/generators/spectral/structured.py",
        "constant seed",
    ): "where an eigensolver starts",
    (
        "server/sfumato_server/coordinator/study.py",
        "constant seed",
    ): "an interval about a public histogram",
}

# whole files of the client that draw by torch or numpy all the same: what they draw, which is neither secret nor shown
BESIDE_THE_STREAMS = {
    "client/sfumato_client/anonymise/dp_k_average.py": "draws of the prior from a public seed, to know its variance",
    "client/sfumato_client/anonymise/identities.py": "batches and views of a network that never leaves the site",
    "client/sfumato_client/anonymise/in_latent_space.py": "the library's functions, under their caller's own generator",
    "client/sfumato_client/anonymise/self_supervised.py": "batches and views of a network that never leaves the site",
    "client/sfumato_client/audit/attacks/base.py": "bootstrap of the steward's intervals, from a public seed",
    "client/sfumato_client/audit/attacks/identity.py": "batches and views of the gate's verifier, from a public seed",
    "client/sfumato_client/audit/attacks/intervals.py": "bootstrap of the steward's intervals",
    "client/sfumato_client/audit/attacks/pairs.py": "halves of the groups of an attack, from a public seed",
    "client/sfumato_client/audit/attacks/reidentification.py": "batches and views of an attack's, from a public seed",
    "client/sfumato_client/audit/attacks/shadow.py": "shadow cohorts of an attack, under the caller's own generator",
    "client/sfumato_client/audit/attacks/siamese.py": "batches and views of judges, under the caller's own generator",
    "client/sfumato_client/audit/rehearsal.py": "which phantoms are copied in a rehearsal, from a public seed",
    "client/sfumato_client/audit/attacks/membership.py": "halves of members, under the caller's own generator",
    "client/sfumato_client/cli/style_net.py": "views of images of one's choice",
    "client/sfumato_client/flower/worker.py": "a fork's new seed of NumPy's own generator, of which nothing is drawn",
    "client/sfumato_client/tabular/train.py": "the flow's public start",
}

# what draws from torch's global state unless it is given a generator, as functions and as methods
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal", "poisson", "binomial"}
METHOD_DRAWS = {"bernoulli", "multinomial", "normal_", "uniform_", "random_", "bernoulli_", "exponential_"} | {
    "cauchy_",
    *("geometric_", "log_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"),
    *("orthogonal_", "trunc_normal_", "sparse_"),
}
# what takes no generator at all
GLOBAL_ONLY = {"rand_like", "randn_like", "randint_like", "gumbel_softmax", "rrelu", "RReLU", "dropout", "Dropout"} | {
    *("Dropout1d", "Dropout2d", "Dropout3d", "alpha_dropout", "AlphaDropout", "feature_alpha_dropout"),
    "FeatureAlphaDropout",
}
NUMPY_PARTS = {"default_rng", "Generator", "SeedSequence", "Philox", "PCG64", "PCG64DXSM", "SFC64"}
SEEDED = {"default_rng", "SeedSequence", "Philox", "PCG64", "PCG64DXSM", "SFC64"}
WHOLE_MODULES = ("random", "numpy.random.mtrand", "torch.distributions", "torch.utils.data.sampler")


def violations(source):
    """What in `source` draws from, or makes, a generator that it does not name or seed: one word for each place."""
    tree = ast.parse(source)
    names = _imported(tree)
    found = [word for node in ast.walk(tree) for word in _of_import(node)]
    seeded = {
        id(node.func.value): node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "manual_seed"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            found += _of_arguments(node.args)
        if isinstance(node, ast.Call):
            found += _of_call(node, _dotted(node.func, names), seeded.get(id(node)))
    return found


def _imported(tree):
    """Local name -> the full name it was imported as."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full = alias.name if alias.asname else alias.name.partition(".")[0]
                names[alias.asname or full] = full
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _dotted(node, names):
    """The full name of a called function: 'torch.randn'; '?.normal_' for a method of something computed."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    return f"{_dotted(node.value, names)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def _of_import(node):
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and not node.level:
        modules = [f"{node.module}.{alias.name}" for alias in node.names]
    return [f"import {bad}" for name in modules for bad in WHOLE_MODULES if f"{name}.".startswith(f"{bad}.")]


def _of_arguments(arguments):
    """A generator that may be left out is one that will be forgotten."""
    every = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(every[::-1], arguments.defaults[::-1], strict=False)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return ["optional generator" for name, default in pairs if name.arg in ("generator", "rng") and _is_none(default)]


def _of_call(call, name, seeding):
    last, given = name.rpartition(".")[2], {word.arg: word.value for word in call.keywords}
    values = [*call.args, *given.values()]
    named = "generator" in given and not _is_none(given["generator"])
    if name == "torch.Generator":
        return [] if seeding else ["unseeded torch.Generator"]
    if last == "manual_seed":
        if name.startswith(("torch.manual_seed", "torch.random.", "torch.cuda.")):
            return ["torch.manual_seed"]
        return ["constant seed"] if not values or isinstance(values[0], ast.Constant) else []
    if name in ("torch.seed", "torch.initial_seed", "torch.random.seed", "numpy.random.seed"):
        return [name]
    if name.startswith("numpy.random."):
        if last not in NUMPY_PARTS:
            return [name]
        if last in SEEDED and (not values or _is_none(values[0])):
            return [f"unseeded {name}"]
        return ["constant seed"] if last in SEEDED and isinstance(values[0], ast.Constant) else []
    if last == "rvs" and "random_state" not in given:
        return [name]
    if last in GLOBAL_ONLY:
        return [name]
    # a numpy generator is called `rng` throughout the house
    drawing = (last in METHOD_DRAWS and not name.startswith("rng.")) or (
        name.startswith("torch.") and last in TORCH_DRAWS
    )
    return [name] if drawing and not named else []


def _is_none(node):
    return isinstance(node, ast.Constant) and node.value is None


def beside_the_streams(source):
    """What in `source` draws, or names a generator, otherwise than by the streams of `mechanisms/streams.py`."""
    tree = ast.parse(source)
    names = _imported(tree)
    found = [word for node in ast.walk(tree) for word in _of_import(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = _dotted(node, names)
            if name == "torch.Generator" or name.startswith("numpy.random."):
                found.append(name)
        if isinstance(node, ast.Call):
            name = _dotted(node.func, names)
            last = name.rpartition(".")[2]
            by_torch = name.startswith("torch.") and last in TORCH_DRAWS
            if by_torch or last in METHOD_DRAWS or last in GLOBAL_ONLY or last == "rvs":
                found.append(name)
    return found


def test_a_site_draws_secrets_and_outputs_from_its_key_streams_alone():
    files = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "client").rglob("*.py")}
    found = {name for name, source in files.items() if beside_the_streams(source)}
    assert found - BESIDE_THE_STREAMS.keys() == set()
    assert BESIDE_THE_STREAMS.keys() - found == set(), "these need no exception any more"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("import torch\norder = torch.randperm(n, generator=rng)", "torch.randperm"),
        ("from torch import randint\nrow = randint(n, (1,), generator=rng)", "torch.randint"),
        ("import torch\nown = shares.multinomial(3, generator=rng)", "shares.multinomial"),
        ("import torch\nrng = torch.Generator().manual_seed(seed)", "torch.Generator"),
        ("from torch import Generator\nrng: Generator", "torch.Generator"),
        ("import numpy as np\nnp.random.default_rng(seed)", "numpy.random.default_rng"),
        ("import numpy as np\ndef f(rng: np.random.Generator): return rng.choice(3)", "numpy.random.Generator"),
        ("import random", "import random"),
    ],
)
def test_a_draw_beside_the_streams_is_found(source, word):
    assert beside_the_streams(source) == [word]


def test_streams_of_a_site_are_no_draws_beside_them():
    assert not beside_the_streams("secret.permutation(3)\npublished.normal((2,))\nstreams.secret.choice(4)")


def test_every_generator_in_the_packages_is_named_and_seeded():
    found = {
        (path.relative_to(ROOT).as_posix(), word)
        for side in ("common", "client", "server")
        for path in (ROOT / side).rglob("*.py")
        for word in violations(path.read_text())
    }
    assert found - ALLOWED.keys() == set()
    assert ALLOWED.keys() - found == set(), "these need no exception any more"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("import torch\ng = torch.Generator()", "unseeded torch.Generator"),
        ("from torch import Generator as G\ng = G(device='cpu')", "unseeded torch.Generator"),
        ("import torch\ng = torch.Generator()\ng.manual_seed(seed)", "unseeded torch.Generator"),
        ("import torch\ng = torch.Generator().manual_seed(42)", "constant seed"),
        ("import torch as t\nt.manual_seed(s)", "torch.manual_seed"),
        ("from torch import seed\nseed()", "torch.seed"),
        ("import torch\ntorch.randn(3)", "torch.randn"),
        ("import torch\ntorch.randn(3, generator=None)", "torch.randn"),
        ("from torch import randperm\nrandperm(9)", "torch.randperm"),
        ("import torch\nmask = torch.bernoulli(p)", "torch.bernoulli"),
        ("import torch\nx = torch.randn_like(y)", "torch.randn_like"),
        ("x.normal_(0, 1)", "x.normal_"),
        ("torch_like.zeros(3).uniform_()", "?.uniform_"),
        ("from torch import nn\nnn.init.kaiming_normal_(w)", "torch.nn.init.kaiming_normal_"),
        ("from torch.nn.functional import dropout\ndropout(x)", "torch.nn.functional.dropout"),
        ("from torch.distributions import Laplace", "import torch.distributions"),
        ("import torch.distributions as d", "import torch.distributions"),
        ("import numpy as np\nnp.random.default_rng()", "unseeded numpy.random.default_rng"),
        ("import numpy as np\nnp.random.default_rng(None)", "unseeded numpy.random.default_rng"),
        ("from numpy.random import default_rng\ndefault_rng(seed=3)", "constant seed"),
        ("import numpy as np\nnp.random.normal(0, 1, 5)", "numpy.random.normal"),
        ("from numpy import random\nrandom.shuffle(x)", "numpy.random.shuffle"),
        ("import numpy as np\nnp.random.seed(1)", "numpy.random.seed"),
        ("import random", "import random"),
        ("def f():\n    from random import choice", "import random"),
        ("from scipy import stats\nstats.norm.rvs(size=3)", "scipy.stats.norm.rvs"),
        ("def f(x, generator: G | None = None): pass", "optional generator"),
        ("def f(x, *, rng=None): pass", "optional generator"),
    ],
)
def test_a_planted_draw_is_found(source, word):
    assert violations(source) == [word]


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ng = torch.Generator(device='cpu').manual_seed(seed)\ntorch.rand(3, generator=g)",
        "import torch\nx.normal_(generator=g)\ntorch.multinomial(p, 4, replacement=True, generator=rng)",
        "import numpy as np\nr = np.random.default_rng(seed)\nr.normal(0, 1, 5)\nr.standard_normal(3)",
        "from sfumato_common.generators.gan.w_space import Generator\nGenerator(3, 4)",
        "noise.normal((3,), 1.0)\nnoise.uniform((3,))",
        "from torch import nn\nnn.init.zeros_(w)",
        "import secrets\nsecrets.token_hex(16)",
    ],
)
def test_a_generator_that_is_passed_in_is_not_reported(source):
    assert violations(source) == []


@cache  # its budget takes seconds to resolve
def _demo_plan():
    return load_plan(ROOT / "configs" / "demo.yaml")


def _exchanges():
    """Every request of a small study: two sites, every stage twice, the release and the utility figure."""
    plan = _demo_plan()
    asked = [("stage", stage.kind, number) for stage in plan.stages[:2] for number in (1, 2)]
    asked += [("make", "", 0), ("utility", "", 0)]
    requests = [Request(PROTOCOL, plan.digest, kind, stage, number, {}) for kind, stage, number in asked]
    return plan, list(plan.sites)[:2], requests


def _drawn(policy):
    """The first noise of every exchange, the first words of its streams, and its working generator's whole state."""
    plan, sites, requests = _exchanges()
    drawn = []
    for site in sites:
        for request in requests:
            source = noise_of(policy.model_copy(update={"site": site}), plan, request)
            streams = Streams.of(source)
            drawn += [source.normal((4,), 1.0).tobytes(), source.uniform((2,)).tobytes()]
            drawn += [stream._stream.words(4).tobytes() for stream in (streams.secret, streams.published)]
            drawn.append(streams.working.get_state().numpy().tobytes())
    return drawn


@pytest.mark.parametrize("kind", ["secure", "test"])
def test_no_two_exchanges_of_a_study_share_a_generator_or_noise(kind):
    policy = load_yaml(ROOT / "configs" / "policy.yaml", Policy).model_copy(update={"noise": kind})
    drawn = _drawn(policy)
    assert len(drawn) == len(set(drawn)) == 2 * 6 * 5
    again = _drawn(policy)
    # test noise is there to be repeated; secure noise never is, also not for the very same request
    assert again == drawn if kind == "test" else not set(again) & set(drawn)


def test_two_processes_of_a_site_never_share_a_generator_or_noise():
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    policy = load_yaml(ROOT / "configs" / "policy.yaml", Policy)
    inherited = SecureNoise()
    _demo_plan()

    def work():
        results.put([*_drawn(policy), inherited.uniform((2,)).tobytes()])

    children = [fork.Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    drawn = [value for _ in children for value in results.get(timeout=60)] + [
        *_drawn(policy),
        inherited.uniform((2,)).tobytes(),
    ]
    for child in children:
        child.join(20)
        assert child.exitcode == 0
    assert len(drawn) == len(set(drawn)) == 3 * (2 * 6 * 5 + 1)

"""A command loads what it needs: torch alone takes seconds, and who lists studies or reads a ledger needs none."""

import json
import re
import subprocess
import sys
from importlib import metadata
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

HEAVY = ("torch", "opacus", "flwr", "dp_accounting", "onnxruntime", "sklearn")
PACS = "kind: dicomweb\nurl: http://127.0.0.1:1/\ntries: 1\n"


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("client", ("--version",)),
        ("client", ("pacs", "list", "pacs.yaml")),
        ("client", ("pacs", "fetch", "pacs.yaml", "--home", "home")),
        ("client", ("fingerprint", "--home", "home")),
        ("client", ("ledger", "show", "--home", "home")),
        ("server", ("--version",)),
        ("server", ("study", "status", "--home", "nowhere", "--once")),
        ("server", ("coordinator", "fingerprint", "--home", "nowhere")),
    ],
)
def test_a_command_that_computes_nothing_loads_no_torch(side: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "pacs.yaml").write_text(PACS)
    program = (
        f"import json, sys\nsys.argv = ['program', *{words!r}]\nfrom sfumato_{side}.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_ledger_for_other_frameworks_needs_what_its_page_lists(tmp_path: Path) -> None:
    """Beside NVFLARE it is installed without its dependencies: the page's list, and what these need, is all of it."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "library.md").read_text()
    said = re.search(r"--no-deps`\), and ([\w ,.-]+)\.\n", page)
    assert said is not None
    there = _with_needs(set(said[1].lower().replace(" and ", ", ").split(", "))) | {"sfumato", "setuptools"}
    hidden = [name for name, owners in packages_distributions().items() if not there & set(map(_written, owners))]
    assert {"torch", "flwr", "rich"} <= set(hidden), "what is hidden is here: the test can fail"
    program = (
        f"import sys\nhidden = {hidden!r}\nclass Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in hidden:\n            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\nfrom pathlib import Path\nimport numpy as np\n"
        "from sfumato import ledger\nfrom sfumato.ledger import hooks\nfrom sfumato.ledger.update import WholeUpdate\n"
        "ledger.create_ledger(Path('book.sqlite'), site='alder', epsilon=5.0, delta=1e-5)\n"
        "said = {'study': 'lungs', 'purpose': 'a test', 'patients': ['anna', 'berta'], 'tool': hooks.TOOL}\n"
        "with ledger.open_run(Path('book.sqlite'), **said) as run:\n"
        "    hook = hooks.UpdateHook(run, WholeUpdate(clipping_norm=1.0, noise_multiplier=4.0))\n"
        "    hook.before([np.zeros((2, 3))])\n"
        "    hook.after([np.ones((2, 3))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-600:]


def _written(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _with_needs(names: set[str]) -> set[str]:
    """These distributions, and all that they need without extras."""
    found, left = set[str](), list(map(_written, names))
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [
                _written(need.name)
                for need in map(Requirement, metadata.requires(name) or ())
                if need.marker is None or need.marker.evaluate({"extra": ""})
            ]
    return found

"""A command loads what it needs: torch alone takes seconds, and who lists studies or reads a ledger needs none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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

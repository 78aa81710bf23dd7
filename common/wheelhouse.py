"""Makes a wheelhouse: all that one side installs, as wheels with their hashes, for a machine without network.

Run by `make wheelhouse SIDE=hospital`; docs/install.md says how it is used. It holds for the Python version and the
platform that it was made with. What is in it is listed twice: `requirements.txt`, by whose hashes pip installs, and
`sbom.cdx.json` (CycloneDX), for whoever watches for known faults. `SHA256SUMS` covers every file.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIDES = {"hospital": ("common", "client"), "coordinator": ("common", "server"), "whole": (".",)}
# the local version names the build: where no index has it, pip stops, and takes no CUDA in its place
CPU = "+cpu"


def torch_pin() -> str:
    """The one version of torch that the distributions take, as their pyproject.toml pins it."""
    lines = (ROOT / "common" / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    (pin,) = [line.strip(' ",') for line in lines if line.strip().startswith('"torch==')]
    return pin


def collect(side: str, out: Path, cuda: bool) -> list[Path]:
    """Fetch and build every wheel of `side` into `out`, by pip's own settings. Exits with pip's code where it fails."""
    folders = [f"./{folder}" for folder in SIDES[side]]
    torch = torch_pin() + ("" if cuda else CPU)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--wheel-dir", str(out)]
    done = subprocess.run([*pip, torch, *folders], cwd=ROOT, check=False)
    if done.returncode:
        hint = "" if cuda else f"; for '{torch}' pip needs an index or a folder of CPU builds, see docs/install.md"
        sys.exit(f"pip could not collect the wheels{hint}")
    return sorted(out.glob("*.whl"))


def pin_of(wheel: Path) -> str:
    """`name==version --hash=sha256:...` of a wheel, by its own metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")]
        said = BytesParser().parsebytes(archive.read(name))
    return f"{said['Name']}=={said['Version']} --hash=sha256:{sha256(wheel)}"


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_bill(out: Path, side: str) -> None:
    """`sbom.cdx.json` of the pins, by cyclonedx-py, which checks it against CycloneDX's schema."""
    # the pins say nothing of who needs whom, of which it would warn each time
    tool = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", "--output-reproducible"]
    about = [
        "--output-format",
        "JSON",
        "--pyproject",
        str(ROOT / SIDES[side][-1] / "pyproject.toml"),
        "--output-file",
        str(out / "sbom.cdx.json"),
    ]
    subprocess.run([*tool, *about, str(out / "requirements.txt")], check=True)


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", choices=SIDES, required=True)
    parser.add_argument("--out", type=Path, required=True, help="not there yet, or empty")
    parser.add_argument("--cuda", action="store_true", help="torch as the package index has it, several gigabytes")
    words = parser.parse_args()
    out = words.out.resolve()
    if out.exists() and any(out.iterdir()):
        parser.error(f"'{out.name}' is not empty; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    wheels = collect(words.side, out, words.cuda)
    where = f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.machine()}"
    pins = [f"# Sfumato for a {words.side}, made with {where}", *map(pin_of, wheels)]
    (out / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    write_bill(out, words.side)
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(out.iterdir()))
    (out / "SHA256SUMS").write_text(sums, encoding="utf-8")
    print(f"{len(wheels)} wheels, {sum(path.stat().st_size for path in wheels) / 1e6:.0f} MB, in '{out.name}'")
    print(f"sha256 of SHA256SUMS: {sha256(out / 'SHA256SUMS')}; tell it by another way than the folder goes")


if __name__ == "__main__":
    main()

"""Regenerates intake_pb2.py, intake_pb2.pyi and intake_pb2_grpc.py from intake.proto (needs grpcio-tools)."""

from __future__ import annotations

import sys
from pathlib import Path


def generate(folder: Path) -> None:
    """Write the three generated modules for intake.proto into `folder`. Raises RuntimeError when protoc fails."""
    # imported here: a development tool that an installed site does not have
    from grpc_tools import protoc

    source = Path(__file__).with_name("intake.proto")
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{source.parent}", *outputs, str(source)]):
        raise RuntimeError("protoc failed")
    # protoc writes a top-level import; the module lives in a package
    service = folder / "intake_pb2_grpc.py"
    text = service.read_text(encoding="utf-8")
    service.write_text(
        text.replace("import intake_pb2 as", "from sfumato_common.protocol import intake_pb2 as"), encoding="utf-8"
    )


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

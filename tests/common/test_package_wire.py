from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from sfumato_common.protocol import generate, intake_pb2


def test_proto_and_generated_code_agree(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    folder = Path(generate.__file__).parent
    target = tmp_path / "descriptor"
    assert protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={target}", str(folder / "intake.proto")]) == 0
    (written,) = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto()
    intake_pb2.DESCRIPTOR.CopyToProto(generated)
    for message in written.message_type:
        for field in message.field:
            # protoc names it in a descriptor set and leaves it out of generated code
            field.ClearField("json_name")
    assert written == generated


def test_regenerating_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    generate.generate(tmp_path)
    for name in ("intake_pb2.pyi", "intake_pb2_grpc.py"):
        # the compiler's own version number may differ, the contract may not
        assert _without_versions(tmp_path / name) == _without_versions(Path(generate.__file__).with_name(name))


def _without_versions(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if "GENERATED_VERSION =" not in line]

"""The bench of engines on an accelerator, run small: who is exact at which precision is measured, not believed."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from sfumato_client.training.dp.contract import clip_factors, squared_norms
from sfumato_common.generators.device import training_device

PROGRAM = Path(__file__).resolve().parents[1] / "bench" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_bench", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_bench"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_bench_runs_small_and_its_private_rows_are_exact(gpu, tmp_path):
    out = tmp_path / "gpu.json"
    gpu.main(["--cpu-small", "--only", "discriminator", "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["device"].startswith("CPU")
    rows = {(row["engine"], row["precision"]): row for row in found["discriminator 16"]["rows"]}
    for engine in ("loop", "opacus", "opacus-ew", "bookkeeping", "vmap"):
        row = rows[engine, "fp32"]
        assert row["images_per_s"] > 0
        assert 0.999 < row["worst_over_clip"] <= gpu.EXACT
    # whoever runs in bfloat16 is exact there or says that it is not; the two that hold whole float32 gradients are
    for engine in ("loop", "vmap"):
        assert 0.999 < rows[engine, "bf16"]["worst_over_clip"] <= gpu.EXACT
    assert rows["plain", "fp32"]["worst_over_clip"] is None
    assert {row["note"] for (_, precision), row in rows.items() if precision == "tf32"} == {"CUDA only"}


def test_an_engine_whose_norm_is_not_its_sums_is_found_out(gpu):
    """Norms from one precision, the sum from another: what tf32 does to an engine that takes two ways."""
    torch.manual_seed(0)
    gradients = torch.randn(8, 50)

    def clipped_sum(rounded, weights):
        own = gradients * weights
        norms = own.bfloat16().float() * 0.99 if rounded else own
        return [clip_factors(squared_norms(norms), gpu.CLIP) @ own]

    records = [torch.zeros(8, 1)]
    exact, rough = (
        gpu.worst_contribution(lambda _, clip, weights, r=r: clipped_sum(r, weights), records) for r in (False, True)
    )
    assert exact <= gpu.EXACT < rough


def test_training_on_cuda_neither_rounds_products_nor_adds_up_in_any_order(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = True, True, False, True
        assert training_device().type == "cuda"
        assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark) == (
            False,
            False,
            True,
            False,
        )
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = before

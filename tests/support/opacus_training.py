"""A small Opacus training for the ledger's adapter: separable points of as many patients, one record each."""

from __future__ import annotations

import torch
from opacus import PrivacyEngine

PATIENTS = [f"patient-{number}" for number in range(200)]


def prepared(noise_multiplier=1.5, batch=20, optimizer=None, **options):
    """(engine, model, optimizer, loader) as `make_private` gives them."""
    torch.manual_seed(0)
    x = torch.randn(len(PATIENTS), 6)
    data = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    engine = PrivacyEngine()
    made = engine.make_private(
        module=net,
        optimizer=optimizer or torch.optim.SGD(net.parameters(), lr=0.5),
        data_loader=torch.utils.data.DataLoader(data, batch_size=batch, **options),
        noise_multiplier=noise_multiplier,
        max_grad_norm=1.0,
    )
    return engine, *made


def train(model, optimizer, loader, epochs=1):
    """Steps as anybody writes them."""
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

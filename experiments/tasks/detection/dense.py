"""Trains the dense detector by Adam, and writes dense.pth."""

import torch
from detection import data, loss, model

torch.manual_seed(0)
trained, (split, *_) = model(), data()
optimizer = torch.optim.Adam(trained.parameters(), lr=0.002)
for epoch in range(12):
    for batch in split:
        optimizer.zero_grad()
        value = loss(trained, batch)
        value.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: training loss {value.item():.3f}")
torch.save(trained.state_dict(), "dense.pth")

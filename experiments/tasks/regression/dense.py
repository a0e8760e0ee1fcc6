"""Trains the dense model of the regression, and writes dense.pth."""

import torch
from regression import data, loss, model, rmse

torch.manual_seed(0)
trained, (split, validation, _) = model(), data()
optimizer = torch.optim.AdamW(trained.parameters(), lr=0.003, weight_decay=0.1)
for _ in range(30):
    optimizer.zero_grad()
    loss(trained, split).backward()
    optimizer.step()
torch.save(trained.state_dict(), "dense.pth")
with torch.no_grad():
    print(f"validation rmse {rmse(trained, [validation]):.2f}, of the mean {float(validation[1].std()):.2f}")

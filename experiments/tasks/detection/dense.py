"""Trains the dense detector by AdamW, and writes dense.pth."""

import torch
from detection import data, loss, model

EPOCHS = 24
torch.manual_seed(0)
trained, (split, *_) = model(), data()
optimizer = torch.optim.AdamW(trained.parameters(), lr=0.003)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=EPOCHS * len(split))
for epoch in range(EPOCHS):
    for batch in split:
        optimizer.zero_grad()
        value = loss(trained, batch)
        value.backward()
        optimizer.step()
        schedule.step()
    print(f"epoch {epoch + 1}: training loss {value.item():.3f}")
torch.save(trained.state_dict(), "dense.pth")

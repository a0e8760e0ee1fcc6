"""Trains the dense BERT by AdamW, and writes dense.pth."""

import torch
from bert import data, model
from torch.utils.data import DataLoader

torch.manual_seed(0)
trained, (split, validation, _) = model(), data()
optimizer = torch.optim.AdamW(trained.parameters(), lr=0.001)
for _ in range(6):
    for batch in DataLoader(split, 64, shuffle=True):
        optimizer.zero_grad()
        trained(**batch).loss.backward()
        optimizer.step()
torch.save(trained.state_dict(), "dense.pth")
batch = next(iter(DataLoader(validation, len(validation))))
with torch.no_grad():
    wrong = trained.eval()(**batch).logits.argmax(1) != batch["labels"]
print(f"validation error {100 * float(wrong.float().mean()):.2f} %")

"""Trains the dense BERT by AdamW, and writes dense.pth."""

import torch
from bert import data, model
from torch.utils.data import DataLoader

EPOCHS = 15
torch.manual_seed(0)
trained, (split, validation, _) = model(), data()
loader = DataLoader(split, 64, shuffle=True)
optimizer = torch.optim.AdamW(trained.parameters(), lr=0.002)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.002, total_steps=EPOCHS * len(loader))
for _ in range(EPOCHS):
    for batch in loader:
        optimizer.zero_grad()
        trained(**batch).loss.backward()
        optimizer.step()
        schedule.step()
torch.save(trained.state_dict(), "dense.pth")
batch = next(iter(DataLoader(validation, len(validation))))
with torch.no_grad():
    wrong = trained.eval()(**batch).logits.argmax(1) != batch["labels"]
print(f"validation error {100 * float(wrong.float().mean()):.2f} %")

"""Trains the dense LSTM, and writes dense.pth."""

import torch
import torch.nn.functional as F
from series import Classifier, add_noise, data

STEPS = 600
torch.manual_seed(0)
trained, ((series, classes), (unseen, wanted), _) = Classifier(), data()
optimizer = torch.optim.AdamW(trained.parameters(), lr=0.01, weight_decay=0.1)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=STEPS)
for _ in range(STEPS):
    index = torch.randint(len(classes), (64,))
    optimizer.zero_grad()
    F.cross_entropy(trained(add_noise(series[index])), classes[index]).backward()
    optimizer.step()
    schedule.step()
torch.save(trained.state_dict(), "dense.pth")
print(f"validation error {100 * float((trained(unseen).argmax(1) != wanted).float().mean()):.2f} %")

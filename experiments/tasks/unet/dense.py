"""Trains the dense U-Net, and writes dense.pth."""

import torch
import torch.nn.functional as F
from shapes import data
from unet import UNet, iou

STEPS = 400
torch.manual_seed(0)
trained, (split, validation, _) = UNet(), data()
optimizer = torch.optim.AdamW(trained.parameters(), lr=0.01)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=STEPS)
for _ in range(STEPS):
    index = torch.randint(len(split[0]), (32,))
    optimizer.zero_grad()
    F.cross_entropy(trained(split[0][index]), split[1][index]).backward()
    optimizer.step()
    schedule.step()
torch.save(trained.state_dict(), "dense.pth")
with torch.no_grad():
    print(f"validation iou {iou(trained.eval(), [validation]):.2f} %")

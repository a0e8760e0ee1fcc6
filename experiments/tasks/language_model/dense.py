"""Trains a dense language model, gpt or llama, by AdamW, and writes gpt.pth or llama.pth."""

import sys

import language_model
import torch

STEPS = 1500
name = sys.argv[1]
torch.manual_seed(0)
trained, (split, validation, _) = getattr(language_model, name)(), language_model.data()
optimizer = torch.optim.AdamW(trained.parameters(), lr=0.003)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=STEPS)
for _ in range(STEPS):
    index = torch.randint(len(split["labels"]), (32,))
    optimizer.zero_grad()
    trained(**{key: value[index] for key, value in split.items()}).loss.backward()
    optimizer.step()
    schedule.step()
torch.save(trained.state_dict(), f"{name}.pth")
with torch.no_grad():
    print(f"validation perplexity {language_model.perplexity(trained.eval(), [validation]):.3f}")

"""A plain implementation of the triple loss: full logits of both models, masked_select, textbook losses.

distill_step.py compares distilkit with it. It is deliberately not optimised.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain_loss(student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], temperature: float = 2.0) -> Tensor:
    """Return 5 · soft-target loss at all tokens + 2 · masked-LM loss + 1 · cosine loss, for ids and labels (B, T)."""
    ids, labels = batch["input_ids"], batch["labels"]
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        theirs = teacher(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
    ours = student(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)

    wide = mask.unsqueeze(-1).expand_as(ours.logits)
    student_logits = torch.masked_select(ours.logits, wide).view(-1, ours.logits.size(-1))  # (N, V)
    teacher_logits = torch.masked_select(theirs.logits, wide).view(-1, theirs.logits.size(-1))  # (N, V)
    ce = nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(student_logits / temperature, dim=-1), F.softmax(teacher_logits / temperature, dim=-1)
    )
    mlm = nn.CrossEntropyLoss(ignore_index=-100)(ours.logits.view(-1, ours.logits.size(-1)), labels.view(-1))

    wide = mask.unsqueeze(-1).expand_as(ours.hidden_states[-1])
    width = ours.hidden_states[-1].size(-1)
    student_hidden = torch.masked_select(ours.hidden_states[-1], wide).view(-1, width)  # (N, H)
    teacher_hidden = torch.masked_select(theirs.hidden_states[-1], wide).view(-1, width)  # (N, H)
    cos = nn.CosineEmbeddingLoss(reduction="mean")(
        student_hidden, teacher_hidden, torch.ones(len(student_hidden), device=ids.device)
    )
    return 5.0 * ce * temperature**2 + 2.0 * mlm + cos


def plain_step(
    student: nn.Module, teacher: nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], autocast: Any
) -> None:
    """Make one update."""
    with autocast:
        loss = plain_loss(student, teacher, batch)
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), 5.0)
    optimizer.step()
    optimizer.zero_grad()

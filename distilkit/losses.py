"""The losses as pure functions of tensors; R is a number of rows (token positions), V the vocabulary, H the width."""

import torch.nn.functional as F
from torch import Tensor


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · mean over rows of KL(softmax(teacher/T) ‖ softmax(student/T)), logits (R, V) each.

    The factor T² keeps the gradient's size (Hinton et al. 2015, section 2); the mean over rows is DistilBERT's.
    """
    log_s = F.log_softmax(student.float() / temperature, dim=-1)  # (R, V)
    log_t = F.log_softmax(teacher.float() / temperature, dim=-1)  # (R, V)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2


def mlm(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the rows whose label isn't -100; logits (R, V), labels (R,)."""
    return F.cross_entropy(logits.float(), labels, ignore_index=-100)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of 1 - cos(student, teacher), hidden states (R, H) each (Sanh et al. 2019)."""
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()

"""The losses as pure functions of tensors; R is a number of rows (token positions), V the vocabulary, H the width."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · mean over rows of KL(softmax(teacher/T) ‖ softmax(student/T)), logits (R, V) each.

    The factor T² keeps the gradient's size (Hinton et al. 2015, section 2); the mean over rows is DistilBERT's.
    """
    log_s = F.log_softmax(student.float() / temperature, dim=-1)  # (R, V)
    log_t = F.log_softmax(teacher.float() / temperature, dim=-1)  # (R, V)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2


def binary_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · mean over rows and labels of KL(Bernoulli(σ(teacher/T)) ‖ Bernoulli(σ(student/T))), logits (R, C).

    kl() for labels that do not exclude each other: a label is a choice of two, of which the other has the logit 0.
    """
    pairs = [torch.stack([z.float(), torch.zeros_like(z, dtype=torch.float32)], dim=-1) for z in (student, teacher)]
    ours, theirs = (pair.flatten(0, 1) for pair in pairs)  # (R·C, 2)
    return kl(ours, theirs, temperature)


def kl_sampled(student: Tensor, draws: Tensor, entropy: Tensor, temperature: float) -> Tensor:
    """Return T² · mean over rows of an estimate of KL from K draws of the teacher's distribution at the temperature.

    student: logits (R, V); draws: token ids (R, K), a token as often as it was drawn; entropy: the teacher's, in nats
    (R,). The mean of -log softmax(student/T) over the draws is an unbiased estimate of the cross-entropy, and so is its
    gradient; less the entropy it is one of kl(), and may be negative (Anshumann et al. 2025, "Sparse Logit Sampling",
    arXiv 2503.16870, with the teacher itself as the distribution to draw from).
    """
    log_s = F.log_softmax(student.float() / temperature, dim=-1)  # (R, V)
    return (-log_s.gather(1, draws).mean(1) - entropy.float()).mean() * temperature**2


def mlm(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the rows whose label isn't -100; logits (R, V), labels (R,)."""
    return F.cross_entropy(logits.float(), labels, ignore_index=-100)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of 1 - cos(student, teacher), hidden states (R, H) each (Sanh et al. 2019)."""
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()


def hidden(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of hidden states (R, H) each (Jiao et al. 2020, TinyBERT, equation 8)."""
    return F.mse_loss(student.float(), teacher.float())


def relations(states: Tensor, heads: int) -> Tensor:
    """Return the scaled dot products of every two tokens' states in each of `heads` relation heads.

    states (B, A, T, D), whose A · D columns are dealt out anew; returns (B, heads, T, T) (Wang et al. 2020, MiniLMv2,
    equations 3 and 4).
    """
    batch, _, length, _ = states.shape
    split = states.transpose(1, 2).reshape(batch, length, heads, -1).transpose(1, 2).float()  # (B, heads, T, d)
    return torch.matmul(split, split.mT) / math.sqrt(split.shape[-1])


def attention(student: Tensor, teacher: Tensor, tokens: Tensor | None) -> Tensor:
    """Return the mean over heads and tokens of KL(softmax(teacher) ‖ softmax(student)), scores (B, heads, T, T) each.

    `tokens` (B, T) is true at what isn't padding, None where nothing is; padding neither attends nor is attended to
    (Wang et al. 2020, MiniLM, equation 3 for attention maps; MiniLMv2, equation 5 for relations).
    """
    if tokens is not None:
        hole = ~tokens[:, None, None].bool()  # (B, 1, 1, T)
        student, teacher = (scores.masked_fill(hole, torch.finfo(scores.dtype).min) for scores in (student, teacher))
    log_s, log_t = F.log_softmax(student.float(), -1), F.log_softmax(teacher.float(), -1)
    each = F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(-1).mean(1)  # (B, T)
    return each.mean() if tokens is None else (each * tokens).sum() / tokens.sum()

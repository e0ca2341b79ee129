"""Distillation losses as pure functions of tensors.

Shapes: R rows (token positions), V vocabulary size, H hidden size, B sequences, T tokens, C classes or labels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · mean over rows of KL(softmax(teacher/T) ‖ softmax(student/T)), logits (R, V) each.

    The factor T² keeps the scale of the gradient (Hinton et al. 2015, section 2). DistilBERT also averages over rows.
    """
    log_s = F.log_softmax(student.float() / temperature, dim=-1)  # (R, V)
    log_t = F.log_softmax(teacher.float() / temperature, dim=-1)  # (R, V)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2


def binary_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · mean over rows and labels of KL(Bernoulli(σ(teacher/T)) ‖ Bernoulli(σ(student/T))), logits (R, C).

    This is kl() for multi-label tasks: each label is a choice between its logit and 0.
    """
    pairs = [torch.stack([z.float(), torch.zeros_like(z, dtype=torch.float32)], dim=-1) for z in (student, teacher)]
    ours, theirs = (pair.flatten(0, 1) for pair in pairs)  # (R·C, 2)
    return kl(ours, theirs, temperature)


def kl_sampled(student: Tensor, samples: Tensor, entropy: Tensor, temperature: float) -> Tensor:
    """Estimate kl() from K tokens per row, sampled from the teacher's distribution at this temperature.

    student: logits (R, V); samples: token ids (R, K), repeated as often as drawn; entropy: of the teacher, in nats
    (R,). The mean of -log softmax(student/T) over the samples is an unbiased estimate of the cross-entropy, and so is
    its gradient. Subtracting the entropy gives an unbiased estimate of kl(), which may be negative. Follows Anshumann
    et al. 2025, "Sparse Logit Sampling" (arXiv 2503.16870), with the teacher as its own proposal distribution.
    """
    log_s = F.log_softmax(student.float() / temperature, dim=-1)  # (R, V)
    return (-log_s.gather(1, samples).mean(1) - entropy.float()).mean() * temperature**2


def mlm(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over rows whose label is not -100; logits (R, V), labels (R,)."""
    return F.cross_entropy(logits.float(), labels, ignore_index=-100)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of 1 - cos(student, teacher), hidden states (R, H) each (Sanh et al. 2019)."""
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()


def hidden(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of hidden states (R, H) each (Jiao et al. 2020, TinyBERT, equation 8)."""
    return F.mse_loss(student.float(), teacher.float())


def embedding(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over texts of the squared distance of the normalised embeddings, (B, D) each.

    It is 2 - 2 · cosine (Vujanic & Rueckstiess 2025, LEAF, arXiv 2509.12539; Reimers & Gurevych 2020).
    """
    ours, theirs = (F.normalize(vectors.float(), dim=-1) for vectors in (student, teacher))
    return (ours - theirs).pow(2).sum(-1).mean()


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over all pairs of texts of the squared difference of their cosines; (B, D) and (B, D').

    0 for a single text. (Tung & Mori 2019, similarity-preserving distillation, with cosines.)
    """
    ours, theirs = (F.normalize(vectors.float(), dim=-1) for vectors in (student, teacher))
    pairs = len(ours) * (len(ours) - 1)
    return (ours @ ours.T - theirs @ theirs.T).fill_diagonal_(0).pow(2).sum() / max(pairs, 1)


def relations(states: Tensor, heads: int) -> Tensor:
    """Return the scaled dot products of all token pairs in each of `heads` relation heads.

    states (B, A, T, D): the A · D columns are regrouped into relation heads. Returns (B, heads, T, T).
    (Wang et al. 2020, MiniLMv2, equations 3 and 4.)
    """
    batch, _, length, _ = states.shape
    split = states.transpose(1, 2).reshape(batch, length, heads, -1).transpose(1, 2).float()  # (B, heads, T, d)
    return torch.matmul(split, split.mT) / math.sqrt(split.shape[-1])


def attention(student: Tensor, teacher: Tensor, tokens: Tensor | None) -> Tensor:
    """Return the mean over heads and tokens of KL(softmax(teacher) ‖ softmax(student)), scores (B, heads, T, T) each.

    `tokens` (B, T) is False at padding; None means that there is no padding. Padding is ignored both as query and as
    key (Wang et al. 2020, MiniLM, equation 3 for attention maps; MiniLMv2, equation 5 for relations).
    """
    if tokens is not None:
        padding = ~tokens[:, None, None].bool()  # (B, 1, 1, T)
        student, teacher = (scores.masked_fill(padding, torch.finfo(scores.dtype).min) for scores in (student, teacher))
    log_s, log_t = F.log_softmax(student.float(), -1), F.log_softmax(teacher.float(), -1)
    each = F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(-1).mean(1)  # (B, T)
    return each.mean() if tokens is None else (each * tokens).sum() / tokens.sum()

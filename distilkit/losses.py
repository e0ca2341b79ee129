"""The losses as pure functions of tensors; R is a number of rows (token positions), V the vocabulary, H the width."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = (2**22, 2**28)  # logits held at a time, on a CPU (where larger blocks of memory cost more) and on a GPU


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


def mean_by_row(logits: Tensor, owners: Tensor, rows: int) -> Tensor:
    """Return the mean of each row's windows (rows, C); logits (W, C), owners (W,) the row that each was cut from."""
    sums = logits.new_zeros(rows, logits.shape[1]).index_add(0, owners, logits)
    return sums / owners.bincount(minlength=rows).unsqueeze(1)


def mlm(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the rows whose label isn't -100; logits (R, V), labels (R,)."""
    return F.cross_entropy(logits.float(), labels, ignore_index=-100)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of 1 - cos(student, teacher), hidden states (R, H) each (Sanh et al. 2019)."""
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()


class Head(NamedTuple):
    """What a vocabulary head's last layer computes logits from: features (R, H), weight (V, H), bias (V,) or none."""

    features: Tensor
    weight: Tensor
    bias: Tensor | None


def kl_and_mlm(
    student: Head, teacher: Head, labels: Tensor, temperature: float, alpha_ce: float, alpha_mlm: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (alpha_ce · kl + alpha_mlm · mlm, kl, mlm) without ever holding (R, V) logits; labels (R,).

    The same numbers as kl() and mlm() of the two heads' logits. Rows are taken in chunks, and each chunk's gradient,
    T/R · (softmax(s/T) - softmax(t/T)) and (softmax(s) - onehot)/M, is turned into that of features, weight and bias at
    once. Only the first of the three carries a gradient.
    """
    total, ce, masked = _KLAndMLM.apply(*student, *teacher, labels, temperature, alpha_ce, alpha_mlm)  # type: ignore[no-untyped-call]
    return total, ce, masked


class _KLAndMLM(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - apply() takes no keywords
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher_features: Tensor,
        teacher_weight: Tensor,
        teacher_bias: Tensor | None,
        labels: Tensor,
        temperature: float,
        alpha_ce: float,
        alpha_mlm: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        device, rows = features.device.type, len(features)
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        h, w, b = features.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        other_h, other_w = teacher_features.to(dtype), teacher_weight.to(dtype)
        other_b = None if teacher_bias is None else teacher_bias.to(dtype)
        grad_h, grad_w = torch.empty_like(features), torch.zeros_like(weight)
        grad_b = weight.new_zeros(len(weight))
        size = max(1, CHUNK[device != "cpu"] // len(weight))  # rows in a chunk
        count = (labels != -100).sum().clamp(min=1)
        ce, mlm_sum = grad_b.new_zeros(()), grad_b.new_zeros(())
        with torch.autocast(device, enabled=False):
            for start in range(0, rows, size):
                at = slice(start, start + size)
                z, y = F.linear(h[at], w, b).float(), F.linear(other_h[at], other_w, other_b).float()  # (C, V)
                chosen = (labels[at] != -100).nonzero().squeeze(-1)
                log_r = F.log_softmax(z[chosen], dim=-1)  # (M, V)
                log_p, log_q = F.log_softmax(z.div_(temperature), dim=-1), F.log_softmax(y.div_(temperature), dim=-1)
                q = log_q.exp()
                ce += torch.dot(q.flatten(), log_q.sub_(log_p).flatten())
                grad = log_p.exp_().sub_(q).mul_(alpha_ce * temperature / rows)  # (C, V)
                target = labels[at][chosen].unsqueeze(-1)
                mlm_sum -= log_r.gather(1, target).sum()
                wrong = log_r.exp_().scatter_add_(1, target, log_r.new_full(target.shape, -1.0))
                grad.index_add_(0, chosen, wrong * (alpha_mlm / count))
                grad_b += grad.sum(0)
                g = grad.to(dtype)
                grad_h[at] = g @ w
                grad_w += g.T @ h[at]
        ce, mlm_mean = ce * temperature**2 / rows, mlm_sum / count
        ctx.save_for_backward(grad_h, grad_w, None if bias is None else grad_b)
        ctx.mark_non_differentiable(ce, mlm_mean)
        return alpha_ce * ce + alpha_mlm * mlm_mean, ce, mlm_mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_h, grad_w, grad_b = ctx.saved_tensors
        return grad_h * grad, grad_w * grad, None if grad_b is None else grad_b * grad, *[None] * 7

"""The losses as pure functions of tensors; R is a number of rows (token positions), V the vocabulary, H the width."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distilkit.encoders.forward import Head

CHUNK = (2**24, 2**27)  # logits held at a time, on a CPU and on a GPU
SLICE = 32  # rows of logits that stay in a CPU's cache from one operation to the next
BLOCK = 1024  # columns of a matrix product with many, which CPU libraries compute faster in blocks (MKL: 1.4 times)


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


def kl_and_mlm(
    student: Head,
    teacher: Head,
    targets: Tensor,
    temperature: float,
    alpha_ce: float | Tensor,
    alpha_mlm: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (alpha_ce · kl + alpha_mlm · mlm, kl, mlm) without ever holding (R, V) logits; kl over all R rows.

    targets (M,) are the tokens to predict at the first M of them. The same numbers as kl() and mlm() of the two heads'
    logits. Rows are taken in chunks, and each chunk's gradient, T/R · (softmax(s/T) - softmax(t/T)) and (softmax(s) -
    onehot)/M, is turned into that of features, weight and bias at once. Only the first of the three carries a gradient.
    """
    total, ce, masked = _KLAndMLM.apply(*student, *teacher, targets, temperature, alpha_ce, alpha_mlm)  # type: ignore[no-untyped-call]
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
        targets: Tensor,
        temperature: float,
        alpha_ce: float | Tensor,
        alpha_mlm: float | Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        device, rows = features.device.type, len(features)
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        ours = _cool(Head(features, weight, bias), temperature, dtype)
        theirs = _cool(Head(teacher_features, teacher_weight, teacher_bias), temperature, dtype)
        grad_h, grad_w = torch.empty_like(features, dtype=dtype), torch.zeros_like(weight)
        grad_b, h = weight.new_zeros(len(weight), dtype=torch.float32), features.to(dtype)
        size = max(1, -(-rows // max(1, -(-rows * len(weight) // CHUNK[device != "cpu"]))))  # rows in a chunk
        buffers = [torch.empty(size, len(weight), device=device) for _ in range(2)]
        of_ce, of_mlm = alpha_ce * temperature / max(rows, 1), alpha_mlm / max(len(targets), 1)
        scale = torch.as_tensor(of_ce + of_mlm, dtype=torch.float32).clamp(min=1e-30)  # left to backward(): without it
        of_ce, of_mlm = of_ce / scale, of_mlm / scale  # the gradients are no larger than 1, nor too small for fp16
        ce, mlm_sum = grad_b.new_zeros(()), grad_b.new_zeros(())
        with torch.autocast(device, enabled=False):
            for start in range(0, rows, size):
                at = slice(start, min(start + size, rows))
                grad, their_logits = (buffer[: at.stop - start] for buffer in buffers)  # (C, V)
                _logits(ours, at, grad)
                _logits(theirs, at, their_logits)
                target = targets[at].unsqueeze(-1)  # (m, 1)
                wrong, missed = _misses(grad[: len(target)] * temperature, target)  # (m, V)
                few = SLICE if device == "cpu" else size
                for p, q in zip(grad.split(few), their_logits.split(few), strict=True):
                    ce += _difference(p, q)
                    grad_b += p.mul_(of_ce).sum(0)
                mlm_sum += missed
                grad[: len(target)] += wrong.mul_(of_mlm)
                grad_b += wrong.sum(0)
                g = grad.to(dtype)
                torch.mm(g, ours.weight, out=grad_h[at])
                if grad_w.dtype == dtype:
                    grad_w.addmm_(g.T, h[at])
                else:
                    grad_w += g.T @ h[at]
        ce, mlm_mean = ce * temperature**2 / max(rows, 1), mlm_sum / max(len(targets), 1)
        ctx.save_for_backward(grad_h, grad_w, None if bias is None else grad_b)
        ctx.scale = scale
        ctx.mark_non_differentiable(ce, mlm_mean)
        return alpha_ce * ce + alpha_mlm * mlm_mean, ce, mlm_mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_h, grad_w, grad_b = ctx.saved_tensors
        grad = grad * ctx.scale
        return grad_h * grad, grad_w * grad, None if grad_b is None else grad_b * grad, *[None] * 7


def _cool(head: Head, temperature: float, dtype: torch.dtype) -> Head:
    """Return a head whose logits are divided by the temperature, which is cheaper before them than after."""
    bias = None if head.bias is None else (head.bias / temperature).to(dtype)
    return Head((head.features / temperature).to(dtype), head.weight.to(dtype), bias)


def _misses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax(logits) - onehot(targets) (m, V) and the sum of the rows' cross-entropy; targets (m, 1)."""
    log_p = torch.log_softmax(logits, dim=-1)
    loss = -log_p.gather(1, targets).sum()
    return log_p.exp_().scatter_add_(1, targets, log_p.new_full(targets.shape, -1.0)), loss


def _difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """Turn logits (C, V) into softmax(ours) - softmax(theirs) in place; returns the sum of the rows' KL divergence.

    KL is the teacher's mean of the logits' difference plus the difference of the logsumexps (ours - theirs), each of
    which is the greatest logit less the logarithm of its probability: as many exponentials less.
    """
    normalizers = ours.amax(-1) - theirs.amax(-1)  # (C,)
    q = torch.softmax(theirs, dim=-1)
    divergence = theirs.sub_(ours).mul_(q).sum(-1)  # sum() adds pairwise, which a dot product does not
    p = torch.softmax(ours, dim=-1, out=ours)
    normalizers += q.amax(-1).log() - p.amax(-1).log()
    p.sub_(q)
    return (divergence + normalizers).sum()


def _logits(head: Head, at: slice, out: Tensor) -> None:
    """Compute a chunk's logits (C, V) into `out`."""
    features, weight, bias = head.features[at], head.weight, head.bias
    if out.dtype != weight.dtype:
        out.copy_(F.linear(features, weight, bias))
        return
    width = BLOCK if out.device.type == "cpu" else len(weight)
    for start in range(0, len(weight), width):
        block = slice(start, start + width)
        torch.mm(features, weight[block].T, out=out[:, block])
        if bias is not None:
            out[:, block].add_(bias[block])

"""How far a policy is from the model it began with: estimates of KL(policy || start) of a whole response, in nats.

Both are unbiased over responses sampled from the policy at the same temperature:
  sampled   sum of log policy(token) - log start(token) over the response's tokens ("k1"); noisy, can be negative
  summed    sum over positions of the exact KL between the two next-token distributions ("Rao-Blackwellised": Amini,
            Vieira, Cotterell 2025), never negative and less noisy; what is told here
The KL of a response is the sum over its tokens; divided by them it is trl's "kl".
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class Told(NamedTuple):
    """Of each response, float64 (n,)."""

    summed: "torch.Tensor"  # nats, by the exact sum over the vocabulary at each position
    sampled: "torch.Tensor"  # nats, by the tokens sampled
    entropy: "torch.Tensor"  # nats, of the policy, summed over positions


def of_logits(policy: "torch.Tensor", start: "torch.Tensor", tokens: "torch.Tensor", mask: "torch.Tensor") -> Told:
    """policy, start: logits (n, length, vocabulary), already divided by the temperature, that predict tokens (n, length).

    mask (n, length): 1 for tokens of the response, its end token with it.
    """
    mine, theirs = policy.float().log_softmax(-1), start.float().log_softmax(-1)
    weight = mine.exp()
    mask = mask.double()

    def over(found: "torch.Tensor") -> "torch.Tensor":
        return (found.double() * mask).sum(-1)

    at = tokens.unsqueeze(-1)
    # A token that a model rules out (-inf) has weight 0; 0 * inf must not become NaN.
    ratio = (mine - theirs).masked_fill(weight == 0, 0.0)
    plain = mine.masked_fill(weight == 0, 0.0)
    sampled = (mine.gather(-1, at) - theirs.gather(-1, at)).squeeze(-1)
    return Told(over((weight * ratio).sum(-1)), over(sampled), over(-(weight * plain).sum(-1)))

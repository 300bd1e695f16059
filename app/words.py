"""Words of a response, marked by what they do to the reward: inert text, escaped, told by underline as well as by colour."""

import html
from collections.abc import Sequence

LEVELS = 4
STYLE = """<style>
.ser-words { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 2.05; max-height: 26rem; overflow: auto;
  padding: .6rem .8rem; border: 1px solid color-mix(in srgb, currentColor 18%, transparent); border-radius: .5rem; }
.ser-scale { font-size: .85rem; padding: .35rem 0; line-height: 2; }
.ser-words span, .ser-scale span { border-radius: .15rem; padding: .08rem 0; text-underline-offset: .22em; }
"""
for level in range(1, LEVELS + 1):
    for sign, colour, line in (("up", "#2F86C6", "solid"), ("down", "#D97706", "wavy")):
        STYLE += (
            f".ser-{sign}{level} {{ background: color-mix(in srgb, {colour} {7 * level}%, transparent); "
            f"text-decoration: underline {line} {colour} {0.5 + 0.7 * level:.1f}px; }}\n"
        )
STYLE += "</style>"


def marked(pieces: Sequence[str], effect: Sequence[float], level: Sequence[int]) -> str:
    """level: -LEVELS .. LEVELS for each piece. Whoever points at a piece reads its effect."""
    largest = max((abs(value) for value in effect), default=0.0)
    parts = []
    for piece, value, how in zip(pieces, effect, level, strict=True):
        text = piece.rstrip()
        blank = html.escape(piece[len(text) :])
        kind = f' class="ser-{"up" if how > 0 else "down"}{abs(how)}"' if how else ""
        parts.append(f'<span{kind} title="{value:+.3f}">{html.escape(text)}</span>{blank}')
    scale = [f'<span class="ser-up{n}">{n / LEVELS * largest:+.2f}</span>' for n in (LEVELS, LEVELS // 2)]
    lower = [f'<span class="ser-down{n}">{-n / LEVELS * largest:+.2f}</span>' for n in (LEVELS // 2, LEVELS)]
    told = f"raises the reward, straight line: {' '.join(scale)} &nbsp; lowers it, wavy line: {' '.join(lower)}"
    return f'{STYLE}<div class="ser-scale">{told}</div><div class="ser-words" dir="auto">{"".join(parts)}</div>'

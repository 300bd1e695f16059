"""Records -> plotly figures. Pure functions, no Streamlit: what a figure shows is what it is given."""

from charts.buckets import buckets, with_rule
from charts.certified import confidence, precision, reliability
from charts.comparison import against, at_the_end, by_labels, by_round, on_white
from charts.dataset import lengths, longer_preferred
from charts.drawing import svg
from charts.duel import win_rates
from charts.funnel import funnel
from charts.people import ORIGIN_NAMES, agreement, learning_curve, origins
from charts.policy import JUDGE, REWARD, gain, steps
from charts.resources import resources
from charts.rewardbench import rewardbench
from charts.rewards import best_of, margins, preferences
from charts.rounds import CHANCE, accuracy, difference, kept, loss
from charts.selection import gaps, zones
from charts.spark import sparkline
from charts.template import COLOUR, CONFIG, HEIGHT, empty

__all__ = [
    "CHANCE",
    "COLOUR",
    "CONFIG",
    "HEIGHT",
    "JUDGE",
    "ORIGIN_NAMES",
    "REWARD",
    "accuracy",
    "against",
    "agreement",
    "at_the_end",
    "best_of",
    "buckets",
    "by_labels",
    "by_round",
    "confidence",
    "difference",
    "empty",
    "funnel",
    "gain",
    "gaps",
    "kept",
    "learning_curve",
    "lengths",
    "longer_preferred",
    "loss",
    "margins",
    "on_white",
    "origins",
    "precision",
    "preferences",
    "reliability",
    "resources",
    "rewardbench",
    "sparkline",
    "steps",
    "svg",
    "win_rates",
    "with_rule",
    "zones",
]

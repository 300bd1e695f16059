"""Records -> plotly figures. Pure functions, no Streamlit: what a figure shows is what it is given."""

from charts.certified import confidence, precision, reliability
from charts.people import ORIGIN_NAMES, agreement, learning_curve, origins
from charts.rounds import CHANCE, accuracy, difference, kept, loss
from charts.selection import gaps, zones
from charts.template import COLOUR, CONFIG, empty

__all__ = [
    "CHANCE",
    "COLOUR",
    "CONFIG",
    "ORIGIN_NAMES",
    "accuracy",
    "agreement",
    "confidence",
    "difference",
    "empty",
    "gaps",
    "kept",
    "learning_curve",
    "loss",
    "origins",
    "precision",
    "reliability",
    "zones",
]

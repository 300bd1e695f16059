"""What the answers of a run say of the people who gave them: how far they agree with one another, with the model, with
themselves and with the seed, what sways them, and how fast they are.

Answers count as they were given before anything of the model was shown. Knows no page; opens no data set.
"""

from ser_backend.annotators.figures import (
    ENOUGH,
    MOST_COUPLES,
    MOST_DOMAINS,
    Changed,
    Domain,
    Figures,
    Person,
    figures,
)
from ser_backend.annotators.table import pairs_of
from ser_backend.annotators.words import CLOSE, Side, in_words, more_needed, remarks, sides, warnings

__all__ = [
    "CLOSE",
    "ENOUGH",
    "MOST_COUPLES",
    "MOST_DOMAINS",
    "Changed",
    "Domain",
    "Figures",
    "Person",
    "Side",
    "figures",
    "in_words",
    "more_needed",
    "pairs_of",
    "remarks",
    "sides",
    "warnings",
]
